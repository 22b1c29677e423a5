#include "eval/data_types.h"

#include <algorithm>

#include "core/base/check.h"
#include "core/base/hash.h"
#include "eval/tasks/run_task.h"

namespace qlora {
namespace {

constexpr Operands kPlain = Operands::as_stored;

// Blocks of 64 have an f32 scale each, or with double quantization 8 bits and an f32 for 256 of them.
constexpr double kScale = 32.0 / 64, kScaled = 4 + kScale, kScaledTwice = 4 + 8.0 / 64 + 32.0 / (64 * 256);

const DataTypeForm kForms[] = {
    {"f32", {}, kPlain, 32, std::nullopt},
    {"bf16", {}, Operands::bf16, 16, std::nullopt},
    {"int8", {.format = Format::int8}, kPlain, 8 + kScale, std::nullopt},
    {"int4", {.format = Format::int4}, kPlain, kScaled, 34.34},
    {"fp4-e2m1", {.format = Format::fp4}, kPlain, kScaled, 31.07},
    {"fp4-e3m0", {.format = Format::fp4_e3m0}, kPlain, kScaled, 29.48},
    {"nf4", {.format = Format::nf4}, kPlain, kScaled, std::nullopt},
    {"nf4+dq", {.format = Format::nf4, .double_quant = true}, kPlain, kScaledTwice, 27.41},
};

void add_windows(const std::string& text, const Tokenizer& tokenizer, int64_t length, int64_t most,
                 std::vector<TokenExample>& windows) {
  const auto full = [&] { return most > 0 && static_cast<int64_t>(windows.size()) == most; };
  const std::vector<int32_t> ids = tokenizer.encode(text, false);
  for (auto begin = ids.begin(); ids.end() - begin >= 2 && !full();
       begin += std::min(length, ids.end() - begin)) {
    TokenExample& window = windows.emplace_back();
    window.ids.assign(begin, begin + std::min(length, ids.end() - begin));
    window.labels = window.ids;
    window.labels[0] = -100;
  }
}

}  // namespace

std::span<const DataTypeForm> data_type_forms() {
  return kForms;
}

TextWindows text_windows(std::span<const Path> files, const Tokenizer& tokenizer, int64_t length,
                         int64_t most) {
  QLORA_CHECK(length >= 2, usage, "windows of {} tokens: a window needs at least 2", length);
  TextWindows all;
  Sha256 content;
  for (const Path& file : files) {
    const TaskData data = read_task(find_task("perplexity"), file, {});
    content.update(data.content_hash);
    for (const TaskItem& item : data.items)
      add_windows(item.continuations.at(0), tokenizer, length, most, all.windows);
  }
  QLORA_CHECK(!all.windows.empty(), data, "no text of two tokens or more in {}",
              files.empty() ? "no file" : files[0].string());
  all.content_hash = hex(content.finish());
  return all;
}

TextWindows text_windows(std::string_view text, const Tokenizer& tokenizer, int64_t length, int64_t most) {
  QLORA_CHECK(length >= 2, usage, "windows of {} tokens: a window needs at least 2", length);
  TextWindows all;
  add_windows(std::string(text), tokenizer, length, most, all.windows);
  QLORA_CHECK(!all.windows.empty(), data, "the text holds fewer than two tokens");
  all.content_hash = hex(sha256(text));
  return all;
}

}  // namespace qlora
