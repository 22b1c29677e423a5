// tokenizer.model: a SentencePiece model (BPE or Unigram), run by libsentencepiece.

#include <sentencepiece_processor.h>

#include <utility>

#include "core/base/check.h"
#include "core/base/hash.h"
#include "core/text/tokenizer_base.h"

namespace qlora {
namespace {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581

using Processor = sentencepiece::SentencePieceProcessor;

// BOS in front where the model has one (LLaMA, Mistral), else EOS behind (T5); tokenizer_config.json may
// differ.
Wrap default_wrap(const Processor& p) {
  Wrap wrap;
  if (p.bos_id() >= 0) {
    wrap.before.push_back(p.bos_id());
  } else if (p.eos_id() >= 0) {
    wrap.after.push_back(p.eos_id());
  }
  return wrap;
}

SpecialTokens special_of(const Processor& p) {
  SpecialTokens special;
  special.bos = p.bos_id();
  special.eos = p.eos_id();
  special.pad = p.pad_id();
  special.unk = p.unk_id();
  return special;
}

class SentencePieceTokenizer final : public TokenizerBase {
 public:
  SentencePieceTokenizer(std::unique_ptr<Processor> p, std::string file_hash)
      : TokenizerBase(special_of(*p), default_wrap(*p), std::move(file_hash)), p_(std::move(p)) {}

  std::string decode(std::span<const int32_t> ids, bool skip_special) const override {
    std::string text;
    std::vector<int> run;
    bool after_control = false;
    auto flush = [&] {
      if (run.empty()) return;
      // The library drops the space in front of a text; here it is one only at the very front.
      if (after_control && p_->IdToPiece(run.front()).starts_with(kSpaceMark)) text += ' ';
      text += p_->DecodeIds(run);
      run.clear();
    };
    for (int32_t id : ids) {
      if (id < 0 || id >= p_->GetPieceSize()) continue;
      if (!p_->IsControl(id)) {
        run.push_back(id);
        continue;
      }
      flush();
      if (!skip_special) text += p_->IdToPiece(id);
      after_control = !text.empty();
    }
    flush();
    return text;
  }

  int64_t vocab_size() const override { return p_->GetPieceSize(); }
  int32_t id_of(std::string_view token) const override {
    int32_t id = p_->PieceToId(absl::string_view(token.data(), token.size()));
    return id == p_->unk_id() && p_->IdToPiece(id) != token ? -1 : id;
  }
  std::string token(int32_t id) const override {
    return id >= 0 && id < p_->GetPieceSize() ? p_->IdToPiece(id) : std::string();
  }

 protected:
  void encode_text(std::string_view text, std::vector<int32_t>& ids) const override {
    std::vector<int> found;
    auto status = p_->Encode(absl::string_view(text.data(), text.size()), &found);
    QLORA_CHECK(status.ok(), failure, "libsentencepiece cannot encode a text: {}", status.ToString());
    ids.insert(ids.end(), found.begin(), found.end());
  }
  bool is_special(int32_t id) const override { return p_->IsControl(id); }

 private:
  std::unique_ptr<Processor> p_;
};

// "<base64> <rank>" a line: what tiktoken writes, also under the name tokenizer.model.
bool looks_like_tiktoken(std::string_view content) {
  std::string_view line = content.substr(0, content.find('\n'));
  size_t space = line.find(' ');
  return space != std::string_view::npos && space > 0 && space + 1 < line.size() &&
         line.substr(space + 1).find_first_not_of("0123456789\r") == std::string_view::npos;
}

}  // namespace

std::shared_ptr<TokenizerBase> make_sentencepiece_tokenizer(const std::string& model,
                                                            std::string_view origin) {
  QLORA_CHECK(!looks_like_tiktoken(model), data,
              "{}: a tiktoken vocabulary, which is not supported yet; take the model's tokenizer.json",
              origin);
  auto p = std::make_unique<Processor>();
  auto status = p->LoadFromSerializedProto(absl::string_view(model.data(), model.size()));
  QLORA_CHECK(status.ok() && p->GetPieceSize() > 0, data,
              "{}: neither a tokenizer.json nor a SentencePiece model", origin);
  return std::make_shared<SentencePieceTokenizer>(std::move(p), hex(sha256(model)));
}

}  // namespace qlora
