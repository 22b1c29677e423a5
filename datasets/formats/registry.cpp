#include "core/base/names.h"
#include "datasets/dataset.h"
#include "datasets/formats/format.h"

namespace qlora {
namespace {

bool has_alpaca(const Record& r) {
  return r.has("instruction") && r.has("output");
}
bool has_self_instruct(const Record& r) {
  return r.has("prompt") && r.has("completion");
}
bool has_input_output(const Record& r) {
  return r.has("input") && r.has("output");
}
bool has_hh_rlhf(const Record& r) {
  return r.has("chosen");
}
bool has_chip2(const Record& r) {
  return r.has("text") && r.optional_text("text").find(kChip2Answer) != std::string::npos;
}
bool has_text(const Record& r) {
  return r.has("text");
}

// In the order of recognition: what needs more fields comes first.
constexpr PromptFormat kFormatTable[] = {
    {"alpaca", alpaca, has_alpaca},
    {"self-instruct", self_instruct, has_self_instruct},
    {"input-output", input_output, has_input_output},
    {"hh-rlhf", hh_rlhf, has_hh_rlhf},
    {"chip2", chip2, has_chip2},
    {"oasst1", oasst1, has_text},
    {"alpaca-clean", alpaca, nullptr},
    {"longform", input_output, nullptr},
};

}  // namespace

std::vector<std::string> dataset_formats() {
  std::vector<std::string> names;
  for (const PromptFormat& format : kFormatTable) names.emplace_back(format.name);
  return names;
}

const PromptFormat& find_format(std::string_view name, const Record& first) {
  for (const PromptFormat& format : kFormatTable) {
    bool found =
        name.empty() ? format.recognises != nullptr && format.recognises(first) : name == format.name;
    if (found) return format;
  }
  if (!name.empty()) fail(ErrorKind::usage, "{}", unknown_name("dataset format", name, dataset_formats()));
  fail(ErrorKind::data, "{}: no known format has the fields {}; known formats: {}", first.where.text(),
       first.names(), fmt::join(dataset_formats(), ", "));
}

}  // namespace qlora
