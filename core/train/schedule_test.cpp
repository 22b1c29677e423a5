#include "core/train/schedule.h"

#include <catch2/catch.hpp>

#include <cmath>

#include "core/base/error.h"
#include "core/base/test_data.h"
#include "core/io/safetensors.h"
#include "core/train/optimizer.h"
#include "kernels/test_backends.h"

using namespace qlora;

namespace {

std::vector<double> doubles(const TensorView& view) {
  const auto* p = reinterpret_cast<const double*>(view.bytes.data());
  return {p, p + view.size()};
}

double worst(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  double out = 0;
  for (size_t i = 0; i < a.size(); ++i) out = test::worse(out, std::abs(static_cast<double>(a[i]) - b[i]));
  return out;
}

}  // namespace

TEST_CASE("Schedules have names and begin and end where they should") {
  using enum ScheduleKind;
  for (ScheduleKind kind : {constant, constant_with_warmup, linear, cosine}) {
    CHECK(schedule_from_name(name_of(kind)) == kind);
    CHECK(schedule_factor(kind, 10, 10, 110) == 1);
  }
  CHECK(schedule_factor(constant, 0, 10, 110) == 1);  // warmup is ignored, as in transformers
  for (ScheduleKind kind : {constant_with_warmup, linear, cosine})
    CHECK(schedule_factor(kind, 4, 10, 110) == 0.4);
  CHECK(schedule_factor(linear, 60, 10, 110) == 0.5);
  CHECK(schedule_factor(cosine, 60, 10, 110) == Approx(0.5));
  CHECK(schedule_factor(linear, 110, 10, 110) == 0);
  CHECK(schedule_factor(linear, 500, 10, 110) == 0);
  CHECK_THROWS_WITH(schedule_from_name("cosin"), Catch::Contains("`cosine`"));
}

TEST_CASE("Schedules are those of transformers", "[golden]") {
  auto path = test::goldens() / "bitsandbytes/optim_f32.safetensors";
  if (test::missing(path)) return;
  SafetensorsFile file(path);
  using enum ScheduleKind;
  int compared = 0;
  for (ScheduleKind kind : {constant, constant_with_warmup, linear, cosine}) {
    const TensorView* view = file.find(std::string("schedule.") + name_of(kind) + ".warmup3.total20");
    if (view == nullptr) continue;
    ++compared;
    std::vector<double> expected = doubles(*view);
    for (size_t i = 0; i < expected.size(); ++i)
      CHECK(schedule_factor(kind, static_cast<int64_t>(i), 3, 20) == Approx(expected[i]).margin(1e-12));
  }
  CHECK(compared > 0);
}

TEST_CASE("AdamW is that of PyTorch on every backend", "[golden]") {
  auto path = test::goldens() / "bitsandbytes/optim_f32.safetensors";
  if (test::missing(path)) return;
  SafetensorsFile file(path);
  const std::vector<float> grads = to_floats(file.at("grads"));
  for (const std::string& backend_name : test::runnable_backends()) {
    auto backend = make_backend(backend_name);
    Memory memory(*backend);
    for (double decay : {0.1, 0.0}) {
      INFO(backend_name << " weight decay " << decay);
      const std::string name = decay > 0 ? "adamw_wd0.1" : "adamw_wd0";
      const double rate = decay > 0 ? 1e-3 : 2e-4;
      const TrainConfig config{.beta2 = decay > 0 ? 0.95 : 0.999, .weight_decay = decay, .max_grad_norm = 0};
      Param param{"p", Tensor::from_floats(memory, {1000}, DType::f32, to_floats(file.at("p0"))),
                  Tensor::zeros(memory, {1000}, DType::f32)};
      Optimizer optimizer({&param}, memory, DType::f32);
      for (int64_t t = 1; t <= 5; ++t) {
        std::span<const float> g = std::span(grads).subspan(static_cast<size_t>(1000 * (t - 1)), 1000);
        param.grad.copy_from(Tensor::from_floats(memory, {1000}, DType::f32, g));
        optimizer.gradient_norm(1);
        optimizer.step(config, rate, t);
        CHECK(worst(param.value.to_floats(), to_floats(file.at(name + ".step" + std::to_string(t) + ".p"))) <
              1e-6);
      }
    }
  }
}
