#include "eval/judge/judge_run.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>
#include <utility>

#include "core/base/check.h"
#include "core/base/json.h"
#include "core/base/philox.h"
#include "eval/judge/verdict_parser.h"

namespace qlora {

namespace {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

constexpr double kLongestPause = 60;  // of our own; the judge may ask for a longer one

// No tokenizer makes more tokens than bytes.
int64_t most_prompt_tokens(const JudgeAsk& ask) {
  return static_cast<int64_t>(ask.request.system.size() + ask.request.user.size()) + 16;
}

// What threads share: the next ask, the budget, the rate.
class Office {
 public:
  Office(std::span<const JudgeAsk> asks, const JudgeRunOptions& options,
         const std::function<void(const Vote*, const JudgeLedgerRow&)>& commit)
      : asks_(asks), options_(options), commit_(commit) {}

  // The next asks, `most` at most, their cost reserved; none when nothing more is to be asked.
  std::vector<const JudgeAsk*> take(size_t most) {
    std::unique_lock lock(mutex_);
    std::vector<const JudgeAsk*> taken;
    while (!stopping_ && next_ < asks_.size() && taken.size() < most) {
      const JudgeAsk& ask = asks_[next_];
      if (affordable(ask)) {
        reserve(ask, 1);
        ++next_;
        ++report_.asked;
        taken.push_back(&ask);
        continue;
      }
      if (!taken.empty()) break;
      if (under_way_ == 0) {
        stop(about_budget(ask));
        break;
      }
      changed_.wait(lock);  // what comes back may leave enough
    }
    return taken;
  }

  // An ask that was taken, and never went out.
  void give_back(const JudgeAsk& ask) {
    std::lock_guard lock(mutex_);
    reserve(ask, -1);
    --report_.asked;
    changed_.notify_all();
  }

  void wait_for_rate() {
    if (options_.per_minute <= 0) return;
    Clock::time_point mine;
    {
      std::lock_guard lock(mutex_);
      mine = std::max(next_request_, Clock::now());
      next_request_ = mine + std::chrono::duration_cast<Clock::duration>(Seconds(60 / options_.per_minute));
    }
    pause_until(mine);
  }

  // Ends early when the run is stopped.
  void pause(double seconds) {
    pause_until(Clock::now() + std::chrono::duration_cast<Clock::duration>(Seconds(seconds)));
  }

  void finish(const JudgeAsk& ask, const Vote* vote, const JudgeLedgerRow& row) {
    std::lock_guard lock(mutex_);
    reserve(ask, -1);
    report_.requests += row.attempts;
    report_.prompt_tokens += row.prompt_tokens;
    report_.answer_tokens += row.answer_tokens;
    report_.money += row.money;
    ++(vote != nullptr ? report_.answered : report_.failed);
    report_.invalid += vote != nullptr && !vote->valid();
    if (vote == nullptr) report_.error = row.error;
    changed_.notify_all();
    if (error_) return;
    try {
      commit_(vote, row);
    } catch (...) {
      error_ = std::current_exception();
      stop("");
    }
  }

  void refuse(const std::string& why) {
    std::lock_guard lock(mutex_);
    stop(why);
  }
  void fail(std::exception_ptr error) {
    std::lock_guard lock(mutex_);
    if (!error_) error_ = error;
    stop("");
  }
  bool stopping() {
    std::lock_guard lock(mutex_);
    return stopping_;
  }

  JudgeRunReport close() {
    if (error_) std::rethrow_exception(error_);
    report_.left = static_cast<int64_t>(asks_.size()) - report_.answered;
    return report_;
  }

 private:
  void stop(const std::string& why) {
    if (!stopping_) report_.stopped = why;
    stopping_ = true;
    changed_.notify_all();
  }
  void pause_until(Clock::time_point time) {
    std::unique_lock lock(mutex_);
    changed_.wait_until(lock, time, [&] { return stopping_; });
  }

  double money(int64_t prompt, int64_t answer) const {
    return (static_cast<double>(prompt) * options_.price_prompt +
            static_cast<double>(answer) * options_.price_answer) /
           1e6;
  }
  bool affordable(const JudgeAsk& ask) const {
    int64_t prompt = most_prompt_tokens(ask), answer = ask.request.max_tokens;
    const int64_t tokens = options_.spent_before.tokens + report_.prompt_tokens + report_.answer_tokens +
                           reserved_tokens_ + prompt + answer;
    if (options_.max_tokens_spent > 0 && tokens > options_.max_tokens_spent) return false;
    const double all = options_.spent_before.money + report_.money + reserved_money_ + money(prompt, answer);
    return options_.max_money_spent <= 0 || all <= options_.max_money_spent;
  }
  std::string about_budget(const JudgeAsk& ask) const {
    const JudgeSpent& before = options_.spent_before;
    std::string text = fmt::format("the budget has no room for another question: spent {} tokens",
                                   before.tokens + report_.prompt_tokens + report_.answer_tokens);
    if (before.tokens > 0) text += fmt::format(", {} of them by earlier runs", before.tokens);
    return text + fmt::format("; the next question may cost up to {} more",
                              most_prompt_tokens(ask) + ask.request.max_tokens);
  }
  void reserve(const JudgeAsk& ask, int sign) {
    int64_t prompt = most_prompt_tokens(ask), answer = ask.request.max_tokens;
    reserved_tokens_ += sign * (prompt + answer);
    reserved_money_ += sign * money(prompt, answer);
    under_way_ += sign;
  }

  std::span<const JudgeAsk> asks_;
  const JudgeRunOptions& options_;
  const std::function<void(const Vote*, const JudgeLedgerRow&)>& commit_;
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t next_ = 0;
  int64_t under_way_ = 0, reserved_tokens_ = 0;
  double reserved_money_ = 0;
  bool stopping_ = false;
  Clock::time_point next_request_ = Clock::now();
  std::exception_ptr error_;
  JudgeRunReport report_;
};

void settle(const JudgeAsk& ask, const ChatReply& reply, const VerdictParser& parser,
            const JudgeRunOptions& options, JudgeLedgerRow& row, Vote& vote) {
  // An endpoint that does not count is taken at the most that it can have been.
  row.prompt_tokens = reply.prompt_tokens > 0 ? reply.prompt_tokens : most_prompt_tokens(ask);
  row.answer_tokens = reply.answer_tokens > 0 ? reply.answer_tokens
                                              : std::min<int64_t>(ask.request.max_tokens,
                                                                  static_cast<int64_t>(reply.text.size()));
  row.money = (static_cast<double>(row.prompt_tokens) * options.price_prompt +
               static_cast<double>(row.answer_tokens) * options.price_answer) /
              1e6;
  vote = ask.vote;
  vote.raw = reply.text;
  const Parsed parsed = parser.parse(reply.text);
  vote.verdict = parsed.verdict;
  vote.first_score = parsed.first;
  vote.second_score = parsed.second;
}

JudgeLedgerRow row_of(const JudgeAsk& ask) {
  return {ask.vote.item, ask.vote.first, ask.vote.second, 0, 0, 0, 0, 0, ""};
}

void ask_one(Office& office, ChatClient& client, const JudgeAsk& ask, const VerdictParser& parser,
             const JudgeRunOptions& options) {
  const Clock::time_point start = Clock::now();
  JudgeLedgerRow row = row_of(ask);
  const uint64_t stream = stream_of(ask.vote.review.data(), ask.vote.review.size());
  Vote vote;
  bool answered = false;
  while (!answered && row.attempts < options.attempts && !office.stopping()) {
    office.wait_for_rate();
    if (office.stopping()) break;
    ++row.attempts;
    const ChatReply reply = client.ask(ask.request);
    answered = reply.kind == ChatReply::Kind::answer;
    if (answered) {
      settle(ask, reply, parser, options, row, vote);
      break;
    }
    row.error = reply.text;
    if (reply.kind == ChatReply::Kind::impossible) break;
    if (reply.kind == ChatReply::Kind::refused) office.refuse("the judge refuses: " + reply.text);
    if (const double wait = reply.retry_after.value_or(0); wait > options.longest_wait_s)
      office.refuse(fmt::format("the judge wants to be asked again in {} s, and the longest wait is {} s: {}",
                                wait, options.longest_wait_s, reply.text));
    if (row.attempts < options.attempts) office.pause(pause_after(row.attempts, reply, options, stream));
  }
  if (answered) row.error.clear();
  row.seconds = Seconds(Clock::now() - start).count();
  office.finish(ask, answered ? &vote : nullptr, row);
}

// Whoever has no answer that way, and may get one, is asked again alone.
void ask_group(Office& office, ChatClient& client, std::span<const JudgeAsk* const> asks,
               const VerdictParser& parser, const JudgeRunOptions& options) {
  Clock::time_point before = Clock::now();
  std::vector<ChatRequest> requests;
  for (const JudgeAsk* ask : asks) requests.push_back(ask->request);
  std::vector<bool> finished(asks.size());
  client.ask_together(requests, [&](size_t i, const ChatReply& reply) {
    const bool answered = reply.kind == ChatReply::Kind::answer;
    if (!answered && reply.kind != ChatReply::Kind::impossible) return !office.stopping();
    JudgeLedgerRow row = row_of(*asks[i]);
    Vote vote;
    row.attempts = 1;
    if (answered)
      settle(*asks[i], reply, parser, options, row, vote);
    else
      row.error = reply.text;
    const Clock::time_point now = Clock::now();  // its time is that since the reply before
    row.seconds = Seconds(now - std::exchange(before, now)).count();
    finished[i] = true;
    office.finish(*asks[i], answered ? &vote : nullptr, row);
    return !office.stopping();
  });
  for (size_t i = 0; i < asks.size(); ++i) {
    if (finished[i]) continue;
    if (office.stopping())
      office.give_back(*asks[i]);
    else
      ask_one(office, client, *asks[i], parser, options);
  }
}

// Until nothing more is to be asked. A rate is kept by asking one at a time.
void ask_all(Office& office, ChatClient& client, const VerdictParser& parser,
             const JudgeRunOptions& options) {
  const auto most = options.per_minute > 0 ? size_t{1} : static_cast<size_t>(client.at_once());
  for (;;) {
    const std::vector<const JudgeAsk*> asks = office.take(most);
    if (asks.empty()) return;
    if (most > 1)
      ask_group(office, client, asks, parser, options);
    else
      ask_one(office, client, *asks.front(), parser, options);
  }
}

void check_limits(const JudgeRunOptions& options) {
  QLORA_CHECK(options.concurrency >= 1 && options.attempts >= 1 && options.backoff_s >= 0, usage,
              "concurrency and attempts must be at least 1, and the pause between attempts not negative");
  QLORA_CHECK(options.max_money_spent <= 0 || options.price_prompt > 0 || options.price_answer > 0, usage,
              "a budget in money needs the prices of a million tokens");
}

const VerdictParser& parser_of(const JudgeRunOptions& options, bool points) {
  const VerdictParser& parser = verdict_parser(!options.parser.empty() ? options.parser
                                               : points                ? "scores-2"
                                                                       : "threeclass-2");
  QLORA_CHECK(parser.points == points, usage, "parser {} reads {}, and the judge is asked for {}",
              parser.name, parser.points ? "points" : "verdicts", points ? "points" : "verdicts");
  return parser;
}

std::string review_of(const JudgeStudy& study, const JudgeAsk& ask) {
  const Vote& v = ask.vote;
  const Json all = {"request-2",        study.judge,      study.model,       v.item,          v.first,
                    v.second,           v.first_answer,   v.second_answer,   v.prompt,        v.points,
                    ask.request.system, ask.request.user, study.temperature, study.max_tokens};
  return answer_id_of(all.dump(-1, ' ', false, Json::error_handler_t::replace));
}

}  // namespace

void ChatClient::ask_together(std::span<const ChatRequest> requests, const Replied& replied) {
  for (size_t i = 0; i < requests.size(); ++i)
    if (!replied(i, ask(requests[i]))) return;
}

// Doubles with every attempt; a jitter of half keeps threads from coming back together.
double pause_after(int attempts, const ChatReply& reply, const JudgeRunOptions& options, uint64_t stream) {
  double pause = options.backoff_s * std::pow(2.0, attempts - 1);
  pause *= 0.75 + 0.5 * PhiloxStream(mix_seed(stream, static_cast<uint64_t>(attempts))).uniform();
  return std::max(std::min(pause, kLongestPause), reply.retry_after.value_or(0));
}

void check_run_options(const JudgeRunOptions& options, bool points) {
  check_limits(options);
  parser_of(options, points);
}

std::vector<JudgeAsk> plan_study(const JudgeStudy& study, const AnswerBook& answers) {
  QLORA_CHECK(study.systems.size() >= 2, usage, "a judge compares at least two systems");
  QLORA_CHECK(
      std::set<std::string>(study.systems.begin(), study.systems.end()).size() == study.systems.size(), usage,
      "a system stands twice among {}", fmt::join(study.systems, ", "));
  std::vector<JudgeAsk> asks;
  for (const std::string& first : study.systems)
    for (const std::string& second : study.systems) {
      if (first == second) continue;
      for (const JudgeQuestion& question : study.questions) {
        const AnswerBook::Answer *one = answers.find(first, question.item),
                                 *two = answers.find(second, question.item);
        QLORA_CHECK(one != nullptr && two != nullptr, data, "{} has no answer to question {}",
                    one == nullptr ? first : second, question.item);
        const JudgePrompt& prompt = prompt_for(study.prompts, question.category);
        JudgeAsk ask;
        ask.vote.item = question.item;
        ask.vote.first = first;
        ask.vote.second = second;
        ask.vote.first_answer = one->id;
        ask.vote.second_answer = two->id;
        ask.vote.judge = study.judge;
        ask.vote.prompt = prompt.id;
        ask.vote.points = study.points;
        ask.wording = wording_of(prompt, study.points);
        ask.request = {prompt.system, fill_prompt(prompt, question.text, one->text, two->text),
                       study.temperature, study.max_tokens};
        ask.vote.review = review_of(study, ask);
        asks.push_back(std::move(ask));
      }
    }
  return asks;
}

JudgeRunReport run_study(std::span<const JudgeAsk> asks,
                         const std::function<std::unique_ptr<ChatClient>()>& make_client,
                         const JudgeRunOptions& options,
                         const std::function<void(const Vote*, const JudgeLedgerRow&)>& commit) {
  check_limits(options);
  if (asks.empty()) return {};
  const VerdictParser& parser = parser_of(options, asks.front().vote.points);
  Office office(asks, options, commit);
  std::vector<std::thread> threads;
  for (int t = 0; t < options.concurrency; ++t)
    threads.emplace_back([&] {
      try {
        const std::unique_ptr<ChatClient> client = make_client();
        ask_all(office, *client, parser, options);
      } catch (...) {
        office.fail(std::current_exception());
      }
    });
  for (std::thread& thread : threads) thread.join();
  return office.close();
}

}  // namespace qlora
