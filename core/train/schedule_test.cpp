#include "core/train/schedule.h"

#include <catch2/catch.hpp>

#include <cmath>
#include <limits>
#include <map>
#include <tuple>

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
  for (const std::string& backend_name : test::runnable_backends(test::EmulatedGpu::included)) {
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

TEST_CASE("AdamW with states of eight bits is that of bitsandbytes on every backend", "[golden]") {
  auto path = test::goldens() / "bitsandbytes/optim_8bit.safetensors";
  if (test::missing(path)) return;
  SafetensorsFile file(path);
  const auto n = static_cast<int64_t>(file.at("p0").shape[0]);
  std::map<std::string, std::string> first;  // a backend's checkpoint
  for (const std::string& backend_name : test::runnable_backends(test::EmulatedGpu::included)) {
    auto backend = make_backend(backend_name);
    Memory memory(*backend);
    for (const std::string name : {"adamw8_wd0", "adamw8_wd0.01", "adamw8_nonfinite"}) {
      INFO(backend_name << " " << name);
      const std::vector<float> grads =
          to_floats(file.at(name == "adamw8_nonfinite" ? "adamw8_nonfinite.grads" : "grads"));
      const TrainConfig config{.weight_decay = name == "adamw8_wd0" ? 0 : 0.01, .max_grad_norm = 0};
      Param param{"p", Tensor::from_floats(memory, {n}, DType::f32, to_floats(file.at("p0"))),
                  Tensor::zeros(memory, {n}, DType::f32)};
      Optimizer optimizer({&param}, memory, DType::f32, 0, true);
      int64_t moved = 0;
      for (int64_t t = 1; t <= 5; ++t) {
        const auto size = static_cast<size_t>(n);
        param.grad.copy_from(Tensor::from_floats(
            memory, {n}, DType::f32, std::span(grads).subspan(size * static_cast<size_t>(t - 1), size)));
        optimizer.gradient_norm(1);
        optimizer.step(config, 1e-3, t);
        const std::string step = name + ".step" + std::to_string(t);
        CHECK(worst(param.value.to_floats(), to_floats(file.at(step + ".p"))) < 2e-6);
        test::TemporaryFolder folder;
        optimizer.save(folder.path() / "states");
        const SafetensorsFile states(folder.path() / "states");
        for (auto [ours, theirs, scale] :
             {std::tuple{"exp_avg", ".state1", ".absmax1"}, {"exp_avg_sq", ".state2", ".absmax2"}}) {
          const std::vector<float> scales = to_floats(states.at(std::string(ours) + "_absmax.p")),
                                   expected = to_floats(file.at(step + scale));
          REQUIRE(scales.size() == expected.size());
          const TensorView codes = states.at(std::string(ours) + ".p"), wanted = file.at(step + theirs);
          for (size_t i = 0; i < scales.size(); ++i) CHECK(scales[i] == Approx(expected[i]).epsilon(1e-6));
          for (size_t i = 0; i < size; ++i) {
            // In a block of zeros alone bitsandbytes has another code, for minus zero.
            if (scales[i / kAdam8Block] == 0) continue;
            const int apart = static_cast<int>(codes.bytes[i]) - static_cast<int>(wanted.bytes[i]);
            CHECK(std::abs(apart) <= 1);
            moved += apart != 0;
          }
        }
      }
      CHECK(moved <= 4);  // within a rounding of the middle between two codes
      // A checkpoint goes on from the same bytes.
      test::TemporaryFolder folder;
      optimizer.save(folder.path() / "a");
      Optimizer other({&param}, memory, DType::f32, 0, true);
      other.restore(folder.path() / "a");
      other.save(folder.path() / "b");
      const std::string bytes = read_file(folder.path() / "a");
      CHECK(read_file(folder.path() / "b") == bytes);
      CHECK(first.emplace(name, bytes).first->second == bytes);  // of all backends
      Optimizer wide({&param}, memory, DType::f32);
      CHECK_THROWS_WITH(wide.restore(folder.path() / "a"),
                        Catch::Contains("expected") || Catch::Contains("tensors"));
    }
  }
}

TEST_CASE("A gradient that is no number leaves its element alone in eight bits, and small tensors have 32") {
  auto backend = make_backend("reference");
  Memory memory(*backend);
  constexpr int64_t kSize = kLeastForEightBits;
  std::vector<float> ones(kSize, 1.0f), grads(kSize, 0.5f);
  grads[7] = std::numeric_limits<float>::quiet_NaN();
  Param large{"large", Tensor::from_floats(memory, {kSize}, DType::f32, ones),
              Tensor::zeros(memory, {kSize}, DType::f32)},
      small{"small", Tensor::from_floats(memory, {kSize - 1}, DType::f32, std::span(ones).first(kSize - 1)),
            Tensor::zeros(memory, {kSize - 1}, DType::f32)};
  Optimizer optimizer({&large, &small}, memory, DType::f32, 0, true);
  optimizer.gradient_norm(1);  // of zeros
  large.grad.copy_from(Tensor::from_floats(memory, {kSize}, DType::f32, grads));
  optimizer.step({.max_grad_norm = 0}, 0.1, 1);
  const std::vector<float> after = large.value.to_floats();
  CHECK(after[7] == 1);
  CHECK(after[6] == Approx(0.9));
  test::TemporaryFolder folder;
  optimizer.save(folder.path() / "states");
  const SafetensorsFile states(folder.path() / "states");
  CHECK(states.at("exp_avg.large").type == DType::u8);
  CHECK(static_cast<int>(states.at("exp_avg.large").bytes[7]) == 127);  // zero
  CHECK(states.at("exp_avg.small").type == DType::f32);
}
