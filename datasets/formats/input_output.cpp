// Data that is already a prompt and an answer: local files, LongForm (Köksal et al. 2023).

#include "datasets/formats/format.h"

namespace qlora {

Pieces input_output(const Record& record) {
  return {record.text("input"), record.text("output")};
}

}  // namespace qlora
