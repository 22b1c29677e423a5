#pragma once
// A study: every question, every two systems, both orders, put to one judge. What is asked is decided before
// the first question goes out; every answer is on the disk before the next is counted; a second run asks only
// what is missing.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "eval/judge/answer_ids.h"
#include "eval/judge/chat_client.h"
#include "eval/judge/judge_prompts.h"
#include "eval/judge/vote.h"

namespace qlora {

// One question to the judge, with everything that its vote will say but the verdict.
struct JudgeAsk {
  Vote vote;
  ChatRequest request;
  std::string wording;  // wording_of() its prompt
};

struct JudgeStudy {
  std::string judge;  // its name in the votes
  std::string model;  // what answers under that name: an endpoint's model, or what a local one consists of
  std::vector<JudgeQuestion> questions;
  std::vector<std::string> systems;  // every two of them are compared, in both orders
  std::vector<JudgePrompt> prompts;
  bool points = false;  // the prompts ask for points
  double temperature = 0.2;
  int max_tokens = 1024;
};

// All asks of a study: for every two systems and both orders, the questions in their order. The id of a
// vote's review follows from all that is asked: judge and model, systems, item and answers, the words of the
// whole prompt, temperature and length. Throws Error(data) when a system has no answer to a question,
// Error(usage) for fewer than two systems or one twice.
std::vector<JudgeAsk> plan_study(const JudgeStudy&, const AnswerBook&);

struct JudgeSpent {
  int64_t tokens = 0;
  double money = 0;
};

struct JudgeRunOptions {
  int concurrency = 4;           // requests under way at a time
  double per_minute = 0;         // requests a minute at most; 0 = no limit
  int attempts = 6;              // for one ask, while the judge says `again`
  double backoff_s = 1;          // before the second attempt; doubles, up to a minute, with jitter
  double longest_wait_s = 600;   // a judge that wants more (Retry-After) ends the run
  int64_t max_tokens_spent = 0;  // budget: tokens of prompts and answers; 0 = none
  double max_money_spent = 0;    // budget in the prices' currency; 0 = none
  JudgeSpent spent_before = {};  // of the budget, by earlier runs
  double price_prompt = 0, price_answer = 0;  // of a million tokens
  std::string parser;                         // empty: threeclass-2 or scores-2
};

// Throws Error(usage) for options that do not go together, or a parser that does not read what the judge is
// asked for; `points`: not a verdict. For those who want to know before there are asks.
void check_run_options(const JudgeRunOptions&, bool points);

// Seconds before the next attempt: the pause that the attempts so far make, or what the judge asked for, if
// that is longer. `stream` seeds the jitter.
double pause_after(int attempts, const ChatReply&, const JudgeRunOptions&, uint64_t stream);

// What one ask cost and came to.
struct JudgeLedgerRow {
  std::string item, first, second;
  int attempts = 0;
  int64_t prompt_tokens = 0, answer_tokens = 0;
  double money = 0, seconds = 0;
  std::string error;  // of the last attempt, when there is no answer
};

struct JudgeRunReport {
  int64_t asked = 0, answered = 0, invalid = 0, failed = 0, left = 0;
  int64_t requests = 0, prompt_tokens = 0, answer_tokens = 0;
  double money = 0;
  std::string stopped;  // why nothing more was asked: the budget, a refusal; empty: all was asked
  std::string error;    // of the last ask that failed
};

// Asks, with one client a thread; as many at a time as the client wants (ChatClient::at_once), or one where a
// rate is to be kept. `commit` gets every answer when it arrives, one call at a time; what it throws ends the
// run and is thrown again. A refusal ends the run, and so does a judge that wants to be left alone for longer
// than longest_wait_s. An ask that is impossible or fails after all attempts is counted and left to the next
// run. The budget: an ask goes out only if the most that it can cost is left of it; what answers report is
// counted, replies that are lost on their way are not.
JudgeRunReport run_study(std::span<const JudgeAsk>,
                         const std::function<std::unique_ptr<ChatClient>()>& make_client,
                         const JudgeRunOptions&,
                         const std::function<void(const Vote*, const JudgeLedgerRow&)>& commit);

struct JudgmentFile;
// The votes of a journal (below), its whole lines alone; none when there is no such folder. Writes nothing.
std::vector<JudgmentFile> journal_votes(const Path& folder);
// The asks that none of these votes answers: a vote answers the ask whose review id it has, and so no ask
// that differs in anything.
std::vector<JudgeAsk> missing_asks(std::span<const JudgmentFile>, std::span<const JudgeAsk>);
// The files' votes that answer one of the asks; files without such a vote are left out.
std::vector<JudgmentFile> votes_for(std::vector<JudgmentFile>, std::span<const JudgeAsk>);

// The journal of a study: a folder with one file of votes an ordered pair, in the release's layout,
// prompts.jsonl with the wording_of() every judge's prompts, and ledger.jsonl. Every row is appended and
// flushed to the disk; a row that a killed process has cut is taken off when the journal is opened again.
class JudgeJournal {
 public:
  explicit JudgeJournal(const Path& folder);
  // The asks that no vote of the journal answers. Throws Error(usage) for names that no file's name can hold,
  // and where the journal's votes were asked for with the same prompt id and other words. A journal without
  // prompts.jsonl (they were not always written) tells points from verdicts alone.
  std::vector<JudgeAsk> missing(std::span<const JudgeAsk>);
  // Votes of the same judge and prompt id on the same item and systems in the same order that answer another
  // request: another question, setting, answer or model, or one of an older version, whose ids said less.
  int64_t other_votes(std::span<const JudgeAsk>) const;
  // Moves them into files of the same names in the folder `superseded`, so that the journal holds one vote an
  // ask. Returns how many.
  int64_t set_aside_other_votes(std::span<const JudgeAsk>) const;
  // Appends the vote (null: the ask failed) and the ledger's row; before the first, the prompts of what was
  // missing.
  void commit(const Vote*, const JudgeLedgerRow&);
  // All that the ledger holds. Throws Error(data) with file and line for a row that is none.
  JudgeSpent spent() const;

 private:
  void check_prompts(std::span<const JudgmentFile>, std::span<const JudgeAsk>);

  Path folder_;
  std::string new_prompts_;  // rows that prompts.jsonl does not have yet
};

}  // namespace qlora
