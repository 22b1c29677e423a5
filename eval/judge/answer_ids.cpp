#include "eval/judge/answer_ids.h"

#include <openssl/sha.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <tuple>

#include "core/base/check.h"
#include "core/base/log.h"
#include "eval/judge/alpaca_eval_outputs.h"
#include "eval/judge/judgments.h"
#include "eval/judge/rows.h"

namespace qlora {

namespace {

// What follows this in a trained model's text is the next dialogue that it made up; the release cuts it off.
constexpr std::string_view kNextDialogue = "A chat between a curious human and an artificial intelligence";

std::string answer_text(const Row& row) {
  if (auto choices = row.json().find("choices"); choices != row.json().end()) {
    const Json& turns = (*choices).at(0).at("turns");
    std::string all;
    for (const Json& turn : turns) all += (all.empty() ? "" : "\n") + turn.get<std::string>();
    return all;
  }
  for (const char* key : {"generation_truncated", "generation", "text"})
    if (row.has(key)) {
      std::string text = row.text(key);
      return row.has("prompt") ? text.substr(0, text.find(kNextDialogue)) : text;
    }
  fail(ErrorKind::data, "{}: the row has no `generation_truncated`, `generation`, `text` or `choices`",
       row.where());
}

using ItemAndId = std::pair<std::string, std::string>;
using Owners = std::map<ItemAndId, std::set<std::string>>;

// Without a book: what all files with an id have in common.
Owners owners_by_agreement(std::span<const JudgmentFile> files) {
  Owners owners;
  auto narrow = [&](const Vote& vote, const std::string& id) {
    if (id.empty()) return;
    auto [place, fresh] = owners.try_emplace({vote.item, id}, std::set<std::string>{vote.first, vote.second});
    if (!fresh)
      std::erase_if(place->second, [&](const std::string& s) { return s != vote.first && s != vote.second; });
  };
  for (const JudgmentFile& file : files)
    for (const Vote& vote : file.votes) {
      if (vote.first_answer == vote.second_answer) continue;  // tells nothing
      narrow(vote, vote.first_answer);
      narrow(vote, vote.second_answer);
    }
  return owners;
}

enum class Order { unknown, named, reversed };

// By the owners of the two ids; each set holds those that are possible.
Order order_of(const Vote& vote, const std::set<std::string>& first, const std::set<std::string>& second) {
  auto only = [](const std::set<std::string>& owners, const std::string& name) {
    return owners.size() == 1 && *owners.begin() == name;
  };
  if (vote.first_answer == vote.second_answer) return Order::unknown;
  bool named = only(first, vote.first) || only(second, vote.second);
  bool reversed = only(first, vote.second) || only(second, vote.first);
  return named == reversed ? Order::unknown : named ? Order::named : Order::reversed;
}

// Answers of a file that the book knows to be of neither of its systems.
struct Strangers {
  int64_t votes = 0;
  std::string first;  // what is wrong with the first
};

std::set<std::string> possible(const Vote& vote, const std::string& id, const Owners& owners,
                               const AnswerBook* book, Strangers& strangers) {
  if (id.empty()) return {};
  if (book != nullptr) {
    const std::set<std::string> all = book->systems_of(vote.item, id);
    if (!all.empty()) {
      std::set<std::string> known = all;
      std::erase_if(known, [&](const std::string& s) { return s != vote.first && s != vote.second; });
      if (known.empty() && book->knows(vote.first) && book->knows(vote.second) && strangers.votes++ == 0)
        strangers.first = fmt::format("{}: answer {} to item {} is of {}", vote.line, id, vote.item,
                                      fmt::join(all, " and "));
      return known;
    }
  }
  auto found = owners.find({vote.item, id});
  return found == owners.end() ? std::set<std::string>{} : found->second;
}

void orient(JudgmentFile& file, const Owners& owners, const AnswerBook* book) {
  int64_t named = 0, reversed = 0;
  int named_line = 0, reversed_line = 0;
  Strangers strangers;
  for (const Vote& vote : file.votes) {
    Order order = order_of(vote, possible(vote, vote.first_answer, owners, book, strangers),
                           possible(vote, vote.second_answer, owners, book, strangers));
    if (order == Order::named && named++ == 0) named_line = vote.line;
    if (order == Order::reversed && reversed++ == 0) reversed_line = vote.line;
  }
  const auto votes = static_cast<int64_t>(file.votes.size());
  QLORA_CHECK(10 * strangers.votes <= votes, data,
              "{}:{}, and the file is about {} and {}; {} of its {} answers are of others: is it another "
              "system's file, or are the generations others than those that were judged?",
              file.path, strangers.first, file.votes.front().first, file.votes.front().second,
              strangers.votes, 2 * votes);
  if (named + reversed == 0) return;
  QLORA_CHECK(
      10 * std::min(named, reversed) <= named + reversed, data,
      "{}: by the answers' ids, the order of the two systems is that of the name in line {} and the opposite "
      "in line {}; a file must show one of them first throughout",
      file.path, named_line, reversed_line);
  file.order = OrderSource::answer_ids;
  file.reversed = reversed > named;
  if (file.reversed)
    for (Vote& vote : file.votes) std::swap(vote.first, vote.second);
}

void fill_lengths(JudgmentFile& file, const AnswerBook& book) {
  for (Vote& vote : file.votes) {
    if (const auto* answer = book.find(vote.first, vote.item))
      vote.first_length = static_cast<int64_t>(answer->text.size());
    if (const auto* answer = book.find(vote.second, vote.item))
      vote.second_length = static_cast<int64_t>(answer->text.size());
  }
}

struct NamedAnswer {
  std::string system, item;
  AnswerBook::Answer answer;
};

// `named`: the system that the file is named after.
NamedAnswer named_answer(const Row& row, const std::string& named) {
  if (std::vector<AlpacaEvalOutput> outputs = alpaca_eval_outputs(row); !outputs.empty()) {
    QLORA_CHECK(outputs.size() == 1, data, "{}: a judgment of two answers; expected one system's answers",
                row.where());
    AlpacaEvalOutput& only = outputs.front();
    return {only.system, only.item, {answer_id_of(only.text), only.text}};
  }
  NamedAnswer found{named, row.id(row.has("question_id") ? "question_id" : "message_id"), {}};
  try {
    found.answer.text = answer_text(row);
  } catch (const Json::exception& e) {
    fail(ErrorKind::data, "{}: `choices` must hold answers as [{{\"turns\": [text, ...]}}]", row.where());
  }
  found.answer.id = row.has("answer_id") ? row.text("answer_id") : answer_id_of(found.answer.text);
  return found;
}

}  // namespace

std::string answer_id_of(std::string_view answer) {
  static constexpr std::array<unsigned char, 16> kDns = {0x6b, 0xa7, 0xb8, 0x10, 0x9d, 0xad, 0x11, 0xd1,
                                                         0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4, 0x30, 0xc8};
  std::string named(kDns.begin(), kDns.end());
  named += answer;
  std::array<unsigned char, SHA_DIGEST_LENGTH> digest;
  SHA1(reinterpret_cast<const unsigned char*>(named.data()), named.size(), digest.data());
  digest[6] = static_cast<unsigned char>((digest[6] & 0x0f) | 0x50);  // version 5
  digest[8] = static_cast<unsigned char>((digest[8] & 0x3f) | 0x80);  // variant of RFC 4122
  unsigned __int128 number = 0;
  for (size_t i = 0; i < 16; ++i) number = number << 8 | digest[i];
  static constexpr std::string_view kAlphabet = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
  std::string id(22, kAlphabet[0]);
  for (size_t i = id.size(); i-- > 0; number /= kAlphabet.size())
    id[i] = kAlphabet[static_cast<size_t>(number % kAlphabet.size())];
  return id;
}

std::string AnswerBook::add(const Path& path) {
  std::string name = path.filename().string();
  for (std::string_view ending : {".gz", ".jsonl", ".json"})
    if (name.ends_with(ending)) name.erase(name.size() - ending.size());
  const std::string named = system_alias(name);
  std::map<std::string, Answer> answers;
  std::string system;
  for_each_row(read_file(path), path.string(), [&](const Row& row) {
    const NamedAnswer one = named_answer(row, named);
    QLORA_CHECK(system.empty() || system == one.system, data,
                "{}: an answer of {}, and the lines before are of {}; give a file for each system",
                row.where(), one.system, system);
    system = one.system;
    QLORA_CHECK(answers.try_emplace(one.item, one.answer).second, data,
                "{}: item {} was answered before in this file", row.where(), one.item);
  });
  if (system.empty()) system = named;
  by_system_[system];  // known, also without an answer
  for (auto& [item, answer] : answers) {
    by_id_[{item, answer.id}].insert(system);
    by_system_[system].try_emplace(item, std::move(answer));
  }
  return system;
}

void AnswerBook::add(const std::string& system, const std::string& item, Answer answer) {
  by_id_[{item, answer.id}].insert(system);
  by_system_[system].try_emplace(item, std::move(answer));
}

std::vector<std::string> AnswerBook::systems() const {
  std::vector<std::string> names;
  for (const auto& [name, answers] : by_system_) names.push_back(name);
  return names;
}

const AnswerBook::Answer* AnswerBook::find(const std::string& system, const std::string& item) const {
  auto answers = by_system_.find(system);
  if (answers == by_system_.end()) return nullptr;
  auto answer = answers->second.find(item);
  return answer == answers->second.end() ? nullptr : &answer->second;
}

std::set<std::string> AnswerBook::systems_of(const std::string& item, const std::string& id) const {
  auto found = by_id_.find({item, id});
  return found == by_id_.end() ? std::set<std::string>{} : found->second;
}

void orient_by_answer_ids(std::span<JudgmentFile> files, const AnswerBook* answers) {
  const Owners owners = owners_by_agreement(files);
  for (JudgmentFile& file : files) {
    if (file.order == OrderSource::name) orient(file, owners, answers);
    if (answers != nullptr) fill_lengths(file, *answers);
  }
}

void warn_of_two_answers(std::span<const JudgmentFile> files) {
  struct Given {
    const std::string* id;
    const JudgmentFile* file;
    int line;
  };
  std::map<std::tuple<std::string, std::string, int>, Given> given;  // system, item, turn
  std::set<std::pair<std::string, std::string>> twice;
  std::string first;
  auto add = [&](const JudgmentFile& file, const Vote& vote, const std::string& system,
                 const std::string& id) {
    if (id.empty()) return;
    const auto [place, fresh] =
        given.try_emplace({system, vote.item, vote.turn}, Given{&id, &file, vote.line});
    const Given& before = place->second;
    if (fresh || *before.id == id || !twice.emplace(system, vote.item).second || !first.empty()) return;
    first = fmt::format("{} has two answers to item {}, {} ({}:{}) and {} ({}:{})", system, vote.item,
                        *before.id, before.file->path, before.line, id, file.path, vote.line);
  };
  for (const JudgmentFile& file : files)
    for (const Vote& vote : file.votes) {
      add(file, vote, vote.first, vote.first_answer);
      add(file, vote, vote.second, vote.second_answer);
    }
  if (!first.empty())
    warn("{}{}; are these two systems of one name? Their votes count together", first,
         twice.size() > 1 ? fmt::format(", and {} more like this", twice.size() - 1) : "");
}

}  // namespace qlora
