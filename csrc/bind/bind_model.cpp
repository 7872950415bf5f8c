// Model and Session. Arrays are matched by name, checked, and run with the GIL released.
#include <memory>
#include <mutex>

#include "bind.h"
#include "lowbit/error.h"
#include "lowbit/model.h"

namespace lowbit {
namespace {

py::dtype numpy_dtype(DType t) {
  return t == DType::f32 ? py::dtype::of<float>() : t == DType::s8 ? py::dtype::of<int8_t>() : py::dtype::of<uint8_t>();
}

py::list infos(const std::vector<TensorInfo>& tensors) {
  py::list out;
  for (const TensorInfo& t : tensors)
    out.append(py::make_tuple(t.name, dtype_name(t.dtype), py::tuple(py::cast(t.shape))));
  return out;
}

std::string shape_of(const py::array& a) { return py::str(a.attr("shape")); }

std::string wanted_shape(const TensorInfo& info) {
  return py::str(py::tuple(py::cast(info.shape))).cast<std::string>() + " (-1: any batch)";
}

// One run at a time: the GIL is released, so two Python threads may share a session.
class PySession {
 public:
  PySession(const Model& model, const SessionOptions& options) : model_(model), session_(model, options) {}

  py::dict run(const py::dict& given) {
    const std::vector<TensorInfo>& inputs = model_.inputs();
    if (given.size() != inputs.size()) check_names(given);
    std::vector<py::array> arrays;
    std::vector<TensorView> in, out;
    for (const TensorInfo& info : inputs) {
      if (!given.contains(info.name)) check_names(given);
      arrays.push_back(checked(given[info.name.c_str()], info));
      const py::array& a = arrays.back();
      in.push_back({info.name, info.dtype, shape_span(a), const_cast<void*>(a.data())});
    }
    const int64_t batch = arrays[0].shape(0);
    py::dict results;
    for (const TensorInfo& info : model_.outputs()) {
      std::vector<py::ssize_t> shape(info.shape.begin(), info.shape.end());
      shape[0] = batch;
      py::array a(numpy_dtype(info.dtype), shape);
      out.push_back({info.name, info.dtype, shape_span(a), a.mutable_data()});
      results[info.name.c_str()] = a;
    }
    py::gil_scoped_release release;
    const std::lock_guard<std::mutex> lock(mutex_);
    session_.run(in, out);
    return results;
  }

  py::array tensor(int index) {
    std::vector<int64_t> shape;
    std::vector<float> values;
    {
      py::gil_scoped_release release;
      const std::lock_guard<std::mutex> lock(mutex_);
      values = session_.tensor(index, shape);
    }
    return py::array_t<float>(shape, values.data());
  }

  py::array tensor_codes(int index) {
    std::vector<std::byte> bytes;
    {
      py::gil_scoped_release release;
      const std::lock_guard<std::mutex> lock(mutex_);
      bytes = session_.tensor_bytes(index);  // checks the index
    }
    const TensorInfo& info = model_.tensors()[static_cast<size_t>(index)];
    std::vector<int64_t> shape = info.shape;
    int64_t items = static_cast<int64_t>(dtype_size(info.dtype));
    for (size_t i = 1; i < shape.size(); ++i) items *= shape[i];
    shape[0] = static_cast<int64_t>(bytes.size()) / items;
    return py::array(numpy_dtype(info.dtype), shape, bytes.data());
  }

  std::vector<double> op_ms() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return session_.op_ms();
  }

  int64_t memory_bytes(int64_t batch) const { return session_.memory_bytes(batch); }

 private:
  static std::span<const int64_t> shape_span(const py::array& a) {
    static_assert(sizeof(py::ssize_t) == sizeof(int64_t));
    return {reinterpret_cast<const int64_t*>(a.shape()), static_cast<size_t>(a.ndim())};
  }

  [[noreturn]] void check_names(const py::dict& given) const {
    std::string wanted, got;
    for (const TensorInfo& info : model_.inputs()) wanted += (wanted.empty() ? "'" : ", '") + info.name + "'";
    for (const auto& item : given) got += (got.empty() ? "" : ", ") + std::string(py::repr(item.first));
    throw py::value_error("Session.run: the inputs are " + wanted + ", but " + (got.empty() ? "none" : got) +
                          " were given");
  }

  static py::array checked(const py::handle& value, const TensorInfo& info) {
    if (!py::isinstance<py::array>(value)) {
      throw py::type_error("Session.run: input '" + info.name + "' must be a NumPy array, not " +
                           std::string(py::str(py::type::of(value).attr("__name__"))));
    }
    py::array a = py::reinterpret_borrow<py::array>(value);
    if (!a.dtype().equal(numpy_dtype(info.dtype))) {
      throw py::type_error("Session.run: input '" + info.name + "' is " + std::string(py::str(a.dtype())) +
                           ", but must be " + dtype_name(info.dtype));
    }
    bool same = a.ndim() == static_cast<py::ssize_t>(info.shape.size());
    for (py::ssize_t i = 1; same && i < a.ndim(); ++i) same = a.shape(i) == info.shape[static_cast<size_t>(i)];
    if (!same) {
      throw py::value_error("Session.run: input '" + info.name + "' has shape " + shape_of(a) + ", but must have " +
                            wanted_shape(info));
    }
    const bool dense = (a.flags() & py::array::c_style) != 0;
    return dense ? a : py::array::ensure(a, py::array::c_style);  // a view that is not dense is made so
  }

  Model model_;
  Session session_;
  std::mutex mutex_;
};

}  // namespace

void bind_model(py::module_& m) {
  py::class_<Model>(m, "Model")
      .def_static("open", &Model::open, py::arg("path"), py::call_guard<py::gil_scoped_release>())
      .def_static(
          "from_bytes",
          [](const py::bytes& data) {
            const std::string_view view = data;
            py::gil_scoped_release release;
            return Model::from_bytes(std::as_bytes(std::span(view.data(), view.size())));
          },
          py::arg("data"))
      .def("inputs", [](const Model& model) { return infos(model.inputs()); })
      .def("outputs", [](const Model& model) { return infos(model.outputs()); })
      .def("tensors", [](const Model& model) { return infos(model.tensors()); })
      .def("plan", &Model::plan)
      .def("manifest", &Model::manifest);
  py::class_<PySession>(m, "Session")
      .def(py::init([](const Model& model, std::optional<int> threads, const std::optional<std::string>& isa,
                       bool keep_tensors, bool profile) {
             return std::make_unique<PySession>(
                 model, SessionOptions{threads_argument(threads), isa_argument(isa), keep_tensors, profile});
           }),
           py::arg("model"), py::arg("threads") = py::none(), py::arg("isa") = py::none(),
           py::arg("keep_tensors") = false, py::arg("profile") = false)
      .def("run", &PySession::run, py::arg("inputs"))
      .def("tensor", &PySession::tensor, py::arg("index"))
      .def("tensor_codes", &PySession::tensor_codes, py::arg("index"))
      .def("op_ms", &PySession::op_ms)
      .def("memory_bytes", &PySession::memory_bytes, py::arg("batch"));
}

}  // namespace lowbit
