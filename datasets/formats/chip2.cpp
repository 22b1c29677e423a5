// OIG-small-chip2: one question and one answer in one text. As in qlora.py, the input is what stands before
// the first answer mark, without any "<human>: ", and the output ends at a second answer mark.

#include "datasets/formats/format.h"

namespace qlora {

Pieces chip2(const Record& record) {
  constexpr std::string_view kHuman = "<human>: ";
  const std::string& text = record.text("text");
  size_t answer = text.find(kChip2Answer);
  QLORA_CHECK(answer != std::string::npos, data, "{}: field `text`: no \"\\n<bot>: \" (format chip2)",
              record.where.text());
  Pieces pieces;
  pieces.input = text.substr(0, answer);
  for (size_t at = 0; (at = pieces.input.find(kHuman, at)) != std::string::npos;)
    pieces.input.erase(at, kHuman.size());
  size_t begin = answer + kChip2Answer.size();
  pieces.output = text.substr(begin, text.find(kChip2Answer, begin) - begin);
  return pieces;
}

}  // namespace qlora
