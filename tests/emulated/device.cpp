// A device for tests, where there is no GPU: its memory is the host's, and the CPU's kernels compute, but tensors on it
// are on another device for PyTorch. An operation with tensors of both devices fails, as on a GPU, and each time that
// the host would have to wait for the device is counted.

#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/extension.h>

#include <set>

using at::IntArrayRef;
using at::Tensor;
using c10::Device;
using c10::DeviceIndex;
using c10::DeviceType;
using c10::SymIntArrayRef;
using std::optional;

namespace {

const Device DEVICE(DeviceType::PrivateUse1, 0);
const c10::DispatchKeySet KEYS(c10::DispatchKey::PrivateUse1);
int64_t waits = 0;
bool computing = false;  // copies between the devices are then this emulation's own

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* place = bytes ? std::aligned_alloc(64, (bytes + 63) / 64 * 64) : nullptr;
    return {place, place, &std::free, DEVICE};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &std::free; }
  void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }
};
Memory memory;
REGISTER_ALLOCATOR(DeviceType::PrivateUse1, &memory);

struct Guard final : c10::impl::DeviceGuardImplInterface {
  static constexpr DeviceType static_type = DeviceType::PrivateUse1;
  DeviceType type() const override { return static_type; }
  Device exchangeDevice(Device) const override { return DEVICE; }
  Device getDevice() const override { return DEVICE; }
  void setDevice(Device) const override {}
  void uncheckedSetDevice(Device) const noexcept override {}
  c10::Stream getStream(Device) const noexcept override { return c10::Stream(c10::Stream::DEFAULT, DEVICE); }
  c10::Stream getDefaultStream(Device device) const override { return getStream(device); }
  c10::Stream exchangeStream(c10::Stream stream) const noexcept override { return stream; }
  DeviceIndex deviceCount() const noexcept override { return 1; }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
};
Hooks hooks;

// The same numbers as a tensor of the CPU.
Tensor host(const Tensor& t) {
  return t.is_cpu() ? t : at::from_blob(t.mutable_data_ptr(), t.sizes(), t.strides(), t.options().device(at::kCPU));
}
optional<Tensor> host(const optional<Tensor>& t) {
  return t && t->defined() ? optional<Tensor>(host(*t)) : std::nullopt;
}
Tensor device(const Tensor& t) {
  return t.defined() ? t.to(t.options().device(DEVICE), /*non_blocking=*/true) : t;
}

Tensor empty(IntArrayRef size, optional<at::ScalarType> dtype, optional<at::Layout>, optional<Device>, optional<bool>,
             optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(size, &memory, KEYS, c10::dtype_or_default(dtype), format);
}
Tensor empty_strided(IntArrayRef size, IntArrayRef stride, optional<at::ScalarType> dtype, optional<at::Layout>,
                     optional<Device>, optional<bool>) {
  return at::detail::empty_strided_generic(size, stride, &memory, KEYS, c10::dtype_or_default(dtype));
}

Tensor copy_from(const Tensor& from, const Tensor& to, bool non_blocking) {
  waits += !computing && !non_blocking && from.is_cpu() != to.is_cpu();
  host(to).copy_(host(from));
  return to;
}
const Tensor& resize(const Tensor& self, SymIntArrayRef size, optional<at::MemoryFormat>) {
  self.unsafeGetTensorImpl()->set_sizes_contiguous(C10_AS_INTARRAYREF_SLOW(size));
  auto storage = self.storage();
  const size_t bytes = (self.numel() + self.storage_offset()) * self.dtype().itemsize();
  if (storage.nbytes() < bytes) {
    auto more = memory.allocate(bytes);
    if (storage.nbytes()) std::memcpy(more.get(), storage.data(), storage.nbytes());
    storage.set_data_ptr(std::move(more));
    storage.set_nbytes(bytes);
  }
  return self;
}
Tensor copy_from_and_resize(const Tensor& from, const Tensor& to) {
  if (from.sizes() != to.sizes()) resize(to, from.sym_sizes(), std::nullopt);
  return copy_from(from, to, false);
}

Tensor& set_all(Tensor& self, at::Storage storage, int64_t offset, IntArrayRef size, IntArrayRef stride) {
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(std::move(storage));
  impl->set_storage_offset(offset);
  impl->set_sizes_and_strides(size, stride);
  return self;
}
Tensor& set_storage(Tensor& self, at::Storage storage) {
  const int64_t size = storage.nbytes() / self.dtype().itemsize();
  return set_all(self, storage, 0, {size}, {1});
}
Tensor& set_tensor(Tensor& self, const Tensor& other) {
  return set_all(self, other.storage(), other.storage_offset(), other.sizes(), other.strides());
}

Tensor as_strided(const Tensor& self, SymIntArrayRef size, SymIntArrayRef stride, optional<c10::SymInt> offset) {
  auto view = at::detail::make_tensor<c10::TensorImpl>(
      c10::TensorImpl::VIEW, c10::Storage(self.storage()), self.key_set(), self.dtype());
  auto* impl = view.unsafeGetTensorImpl();
  impl->set_storage_offset(offset ? offset->expect_int() : self.storage_offset());
  impl->set_sizes_and_strides(C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride));
  return view;
}
Tensor like(const Tensor& self, const Tensor& seen) {
  return as_strided(self, seen.sym_sizes(), seen.sym_strides(), std::nullopt);
}
Tensor view(const Tensor& self, SymIntArrayRef size) { return like(self, host(self).view_symint(size)); }
Tensor unfold(const Tensor& self, int64_t dim, int64_t size, int64_t step) {
  return like(self, host(self).unfold(dim, size, step));
}
Tensor reshape_alias(const Tensor& self, SymIntArrayRef size, SymIntArrayRef stride) {
  return as_strided(self, size, stride, std::nullopt);
}

at::Scalar item(const Tensor& self) {
  waits++;
  return host(self).item();
}

Tensor convolution(const Tensor& x, const Tensor& w, const optional<Tensor>& b, IntArrayRef stride, IntArrayRef padding,
                   IntArrayRef dilation, bool transposed, IntArrayRef output_padding, int64_t groups) {
  return device(at::convolution(host(x), host(w), host(b), stride, padding, dilation, transposed, output_padding, groups));
}
using Three = std::tuple<Tensor, Tensor, Tensor>;
Three devices(const Three& on_host) {
  return {device(std::get<0>(on_host)), device(std::get<1>(on_host)), device(std::get<2>(on_host))};
}
Three convolution_backward(const Tensor& g, const Tensor& x, const Tensor& w, IntArrayRef stride, IntArrayRef padding,
                           IntArrayRef dilation, bool transposed, IntArrayRef output_padding, int64_t groups,
                           std::array<bool, 3> mask) {
  const int64_t outputs = transposed ? w.size(1) * groups : w.size(0);
  return devices(at::convolution_backward(host(g), host(x), host(w), IntArrayRef(outputs), stride, padding, dilation,
                                          transposed, output_padding, groups, mask));
}
// Its running statistics move in place, of which its schema says nothing.
Three batch_norm(const Tensor& x, const optional<Tensor>& w, const optional<Tensor>& b, const optional<Tensor>& mean,
                 const optional<Tensor>& var, bool training, double momentum, double eps) {
  return devices(at::native_batch_norm(host(x), host(w), host(b), host(mean), host(var), training, momentum, eps));
}

// All other operations, by the CPU's kernels on copies.
void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  static const std::set<std::string> indexed{"aten::index.Tensor", "aten::_index_put_impl_"};  // by indices of the CPU
  static const std::set<std::string> waiting{
      "aten::nonzero", "aten::equal", "aten::masked_select", "aten::_unique2", "aten::is_nonzero"};
  const auto name = toString(op.operator_name());
  waits += waiting.count(name);
  auto check = [&](const Tensor& t) {
    TORCH_CHECK(!t.defined() || !t.is_cpu() || t.dim() == 0 || indexed.count(name),
                name, " should be given tensors of one device, found one of the CPU of shape ", t.sizes());
  };
  for (const auto& value : torch::jit::last(*stack, op.schema().arguments().size())) {
    if (value.isTensor()) check(value.toTensor());
    if (value.isTensorList()) for (const Tensor& t : value.toTensorVector()) check(t);
  }
  computing = true;
  try {
    at::native::cpu_fallback(op, stack);
  } catch (...) {
    computing = false;
    throw;
  }
  computing = false;
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("_copy_from", copy_from);
  m.impl("_copy_from_and_resize", copy_from_and_resize);
  m.impl("resize_", resize);
  m.impl("set_.source_Storage", set_storage);
  m.impl("set_.source_Storage_storage_offset", set_all);
  m.impl("set_.source_Tensor", set_tensor);
  m.impl("as_strided", as_strided);
  m.impl("view", view);
  m.impl("unfold", unfold);
  m.impl("_reshape_alias", reshape_alias);
  m.impl("_local_scalar_dense", item);
  m.impl("convolution_overrideable", convolution);
  m.impl("convolution_backward_overrideable", convolution_backward);
  m.impl("native_batch_norm", batch_norm);
}

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  at::RegisterPrivateUse1HooksInterface(&hooks);
  m.def("waits", [] { return waits; });
}
