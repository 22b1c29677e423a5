// Cases of activations and sums, element by element.

#include <string>

#include "kernels/cases/cases.h"

namespace qlora::test {
namespace {

constexpr Write kModes[] = {Write::overwrite, Write::accumulate};
constexpr Activation kKinds[] = {Activation::silu, Activation::gelu, Activation::gelu_tanh, Activation::relu};

const char* name_of(Write mode) {
  return mode == Write::overwrite ? " overwrite" : " accumulate";
}
std::string name_of(Activation kind, int64_t n, bool gated) {
  constexpr const char* kNames[] = {"silu ", "gelu ", "gelu_tanh ", "relu "};
  return kNames[static_cast<int>(kind)] + std::to_string(n) + (gated ? " gated" : "");
}

void* destination(Device& d, const Array& before, Write mode) {
  return mode == Write::accumulate ? d.put(before) : d.make(static_cast<int64_t>(before.size()));
}

// Gates reach far into both saturated ends.
Case activate_case(Activation kind, int64_t n, bool gated) {
  Case c{.kernel = "activate", .shape = name_of(kind, n, gated), .inputs = {normals(1, n, 6), normals(2, n)}};
  // Where the slope is 0, between -0.8 and -1.3, rounding of the operand moves nothing.
  c.cancels = {0.3};
  c.run = [=](Device& d, const std::vector<Array>& in) -> std::vector<Array> {
    void* y = d.make(n);
    d.backend().activate({.kind = kind,
                          .gate = d.put(in[0]),
                          .up = gated ? d.put(in[1]) : nullptr,
                          .y = y,
                          .n = n,
                          .type = d.type()});
    return {d.get(y, n)};
  };
  return c;
}

// Which gradients are asked for, and how they are written.
struct Asked {
  Write gate_mode = Write::overwrite, up_mode = Write::overwrite;
  bool gate = true, up = true;
};

Case activate_backward_case(Activation kind, int64_t n, bool gated, const Asked& asked) {
  const bool wants_up = gated && asked.up;
  Case c{.kernel = "activate_backward"};
  c.shape = name_of(kind, n, gated) + name_of(asked.gate_mode) + name_of(asked.up_mode) +
            (asked.gate ? "" : " without dgate") + (asked.up ? "" : " without dup");
  c.inputs = {normals(1, n, 3), normals(2, n), normals(3, n), normals(4, n), normals(5, n)};
  c.run = [=](Device& d, const std::vector<Array>& in) -> std::vector<Array> {
    void* dgate = asked.gate ? destination(d, in[3], asked.gate_mode) : nullptr;
    void* dup = wants_up ? destination(d, in[4], asked.up_mode) : nullptr;
    d.backend().activate_backward({.kind = kind,
                                   .dy = d.put(in[2]),
                                   .gate = d.put(in[0]),
                                   .up = gated ? d.put(in[1]) : nullptr,
                                   .dgate = dgate,
                                   .dup = dup,
                                   .n = n,
                                   .gate_mode = asked.gate_mode,
                                   .up_mode = asked.up_mode,
                                   .type = d.type()});
    std::vector<Array> results;
    if (asked.gate) results.push_back(d.get(dgate, n));
    if (wants_up) results.push_back(d.get(dup, n));
    return results;
  };
  // Slopes cross zero.
  c.cancels = Array(static_cast<size_t>(asked.gate) + static_cast<size_t>(wants_up), 1.0);
  return c;
}

Case add_case(int64_t n, bool in_place) {
  Case c{.kernel = "add", .shape = std::to_string(n) + (in_place ? " in place" : "")};
  c.inputs = {normals(1, n), normals(2, n)};
  c.run = [=](Device& d, const std::vector<Array>& in) -> std::vector<Array> {
    void* b = d.put(in[1]);
    void* y = in_place ? b : d.make(n);
    d.backend().add({.a = d.put(in[0]), .b = b, .y = y, .n = n, .type = d.type()});
    return {d.get(y, n)};
  };
  return c;
}

}  // namespace

std::vector<Case> element_cases() {
  std::vector<Case> all;
  for (int64_t n : {0, 1, 31, 1000, 20011}) {
    for (bool gated : {true, false}) all.push_back(activate_case(Activation::silu, n, gated));
    for (Write gate : kModes) {
      for (Write up : kModes) all.push_back(activate_backward_case(Activation::silu, n, true, {gate, up}));
    }
    all.push_back(add_case(n, false));
    all.push_back(add_case(n, true));
  }
  for (Activation kind : kKinds) {
    const Asked only_up{Write::overwrite, Write::accumulate, false, true};
    all.push_back(activate_backward_case(kind, 100, true, only_up));
    all.push_back(
        activate_backward_case(kind, 100, true, {Write::accumulate, Write::overwrite, true, false}));
    all.push_back(activate_backward_case(kind, 100, false, {Write::accumulate}));
    all.push_back(activate_backward_case(kind, 20011, false, {}));
    if (kind == Activation::silu) continue;
    for (bool gated : {true, false}) all.push_back(activate_case(kind, 5003, gated));
    all.push_back(activate_backward_case(kind, 1000, true, {}));
  }
  all.push_back(add_case(70001, false));
  return all;
}

}  // namespace qlora::test
