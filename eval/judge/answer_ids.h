#pragma once
// Who was shown first, by the ids of the answers. Names of files lie (66 of the release's 72 files of
// scores): the ids answer1_id and answer2_id of a row do not.

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/file.h"

namespace qlora {

struct JudgmentFile;

// The id that the release gives to an answer without one: shortuuid.uuid(text), which is UUID version 5 in
// the DNS name space, in base 57, 22 characters. Equal answers have equal ids.
std::string answer_id_of(std::string_view answer);

// Answers of systems to items, from generation files of the release (answer_*.jsonl with answer_id;
// generations with generation_truncated, generation or text), of FastChat (choices[0].turns), or outputs of
// AlpacaEval (alpaca_eval_outputs.h).
class AnswerBook {
 public:
  // Adds the answers of one system, and returns its name: the file's (system_alias()), or AlpacaEval's
  // generator. Throws Error(data) with file and line, also for an item that stands in it twice.
  std::string add(const Path&);
  std::vector<std::string> systems() const;  // by name

  struct Answer {
    std::string id, text;
  };
  // Adds one answer, unless the item has one of the system.
  void add(const std::string& system, const std::string& item, Answer);
  const Answer* find(const std::string& system, const std::string& item) const;  // null when unknown
  // The systems that gave this answer to the item.
  std::set<std::string> systems_of(const std::string& item, const std::string& id) const;
  bool knows(const std::string& system) const { return by_system_.count(system) != 0; }

 private:
  std::map<std::string, std::map<std::string, Answer>> by_system_;
  std::map<std::pair<std::string, std::string>, std::set<std::string>> by_id_;  // (item, id)
};

// Turns around the files whose names have the order wrong. An id's system is looked up in `answers`, where
// given; otherwise it is the one that all files with that id on that item have in common, if it is one alone.
// A file is decided by its rows, of which nine in ten must agree; a file without a decided row keeps its
// name's order. Also fills in the lengths of answers that the book knows. Throws Error(data) with file and
// line: rows that disagree; more than one answer to ten rows that the book knows to be of neither system.
// (Equal texts have equal ids: the release has a file of answers by Flan-13B, never released themselves, one
// of which is empty, as Flan-65B's is.)
void orient_by_answer_ids(std::span<JudgmentFile>, const AnswerBook* answers = nullptr);

// Warns once (log.h), naming system, item and both lines, when the ids say that a system gave two answers to
// an item: two systems may have one name (runs of two sweeps), whose votes then count together.
void warn_of_two_answers(std::span<const JudgmentFile>);

}  // namespace qlora
