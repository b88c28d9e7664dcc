#!/usr/bin/env bash
# Run a command beside a real Slurm of one node, this machine: tests/slurm/start.sh python -m pytest -m slurm
#
# Needs munged, slurmctld and slurmd (Debian: slurm-wlm and munge) and installs nothing. All state lies in a temporary
# folder; the daemons end with the command, whose exit code is passed on. Where they do not start, it says so, and the
# command runs without them.
set -uo pipefail
PATH="$PATH:/usr/sbin:/sbin"
here=$(cd "$(dirname "$0")" && pwd)
state=$(mktemp -d)
node=$(hostname -s)
port=$((20000 + RANDOM % 10000))

stop() {
  export SLURM_CONF=$state/slurm.conf # never another cluster's jobs
  if [ -s "$state/slurmctld.pid" ]; then
    scancel --user="$(id -un)"
    for _ in $(seq 300); do [ -n "$(squeue --noheader)" ] && sleep 0.1; done
  fi
  for daemon in slurmd slurmctld munged; do # in this order, so that each can still reach what it needs
    if pid=$(cat "$state/$daemon.pid" 2>/dev/null) && kill "$pid" 2>/dev/null; then
      for _ in $(seq 100); do [ -s "$state/$daemon.pid" ] && kill -0 "$pid" 2>/dev/null && sleep 0.1; done
    fi
  done
  rm -rf "$state"
}

configure() {
  mkdir "$state/spool" "$state/ctld"
  (umask 077 && head -c 128 /dev/urandom >"$state/munge.key")
  # cred_expire is also how long a requeued job waits; config_overrides lets the node have more cores than the machine
  cat >"$state/slurm.conf" <<END
ClusterName=tests
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$state/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation=$state/ctld
SlurmdSpoolDir=$state/spool
SlurmctldPidFile=$state/slurmctld.pid
SlurmdPidFile=$state/slurmd.pid
SlurmctldLogFile=$state/slurmctld.log
SlurmdLogFile=$state/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
SlurmdParameters=config_overrides
MinJobAge=3600
ReturnToService=2
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=20
MpiDefault=none
NodeName=$node NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=debug Nodes=$node Default=YES MaxTime=INFINITE State=UP
PartitionName=urgent Nodes=$node PriorityTier=2 MaxTime=INFINITE State=UP
END
}

start() {
  export SLURM_CONF=$state/slurm.conf
  munged --force --key-file="$state/munge.key" --socket="$state/munge.socket" --pid-file="$state/munged.pid" \
    --log-file="$state/munged.log" --seed-file="$state/munge.seed" && slurmctld && slurmd || return 1
  for _ in $(seq 100); do
    [ "$(sinfo --noheader --format=%T 2>/dev/null)" = idle ] && return
    sleep 0.2
  done
  return 1
}

trap stop EXIT
configure
if start; then
  PATH="$here/bin:$PATH"
else
  echo "tests/slurm/start.sh: Slurm did not start:" >&2
  tail -n 5 "$state"/*.log >&2 2>/dev/null
  unset SLURM_CONF
fi
"$@"
