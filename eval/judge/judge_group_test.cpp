// A study whose judge takes several questions at a time, as a model of our own does.
#include <algorithm>
#include <catch2/catch.hpp>
#include <utility>

#include "core/base/check.h"
#include "eval/judge/judge_run.h"

using namespace qlora;
using Catch::Contains;

namespace {

std::vector<JudgeAsk> questions(int count) {
  std::vector<JudgeAsk> asks(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) {
    JudgeAsk& ask = asks[static_cast<size_t>(i)];
    ask.vote.item = std::to_string(i);
    ask.request = {"", std::to_string(i), 0, 10};
  }
  return asks;
}

// Says 1 or 2 by the question's number, the last question first; to question 3 it has nothing to say, and
// question `busy` it says `first`, and if that is `again`, answers the next time.
class GroupJudge : public ChatClient {
 public:
  GroupJudge(std::vector<size_t>& groups, std::string busy, ChatReply::Kind first)
      : groups_(groups), busy_(std::move(busy)), first_(first) {}
  ChatReply ask(const ChatRequest& request) override {
    ChatReply reply;
    if (request.user == busy_) {
      if (first_ == ChatReply::Kind::again) busy_.clear();
      reply.kind = first_;
      reply.text = "not now";
      return reply;
    }
    reply.kind = request.user == "3" ? ChatReply::Kind::impossible : ChatReply::Kind::answer;
    reply.text = request.user == "3" ? "too long" : std::stoi(request.user) % 2 == 0 ? "so\n1" : "so\n2";
    reply.prompt_tokens = 5;
    reply.answer_tokens = 3;
    return reply;
  }
  int64_t at_once() const override { return 4; }
  void ask_together(std::span<const ChatRequest> requests, const Replied& replied) override {
    groups_.push_back(requests.size());
    for (size_t i = requests.size(); i-- > 0;)
      if (!replied(i, ask(requests[i]))) return;
  }

 private:
  std::vector<size_t>& groups_;
  std::string busy_;
  ChatReply::Kind first_;
};

struct GroupStudy {
  GroupStudy() { options.concurrency = 1; }
  JudgeRunReport run(std::span<const JudgeAsk> asks, int64_t votes_at_most = 1000) {
    return run_study(
        asks, [&] { return std::make_unique<GroupJudge>(groups, busy, first); }, options,
        [&](const Vote* vote, const JudgeLedgerRow& row) {
          QLORA_CHECK(static_cast<int64_t>(rows.size()) < votes_at_most, failure, "the disk is full");
          if (vote != nullptr) votes.push_back(*vote);
          rows.push_back(row);
        });
  }
  JudgeRunOptions options;
  std::string busy;
  ChatReply::Kind first = ChatReply::Kind::again;
  std::vector<size_t> groups;
  std::vector<Vote> votes;
  std::vector<JudgeLedgerRow> rows;
};

}  // namespace

TEST_CASE("a judge of several questions at a time gets each once and its replies reach their questions") {
  GroupStudy study;
  const JudgeRunReport report = study.run(questions(10));
  CHECK(study.groups == std::vector<size_t>{4, 4, 2});
  CHECK((report.asked == 10 && report.answered == 9 && report.failed == 1 && report.left == 1));
  CHECK((report.requests == 10 && report.prompt_tokens == 9 * 5 && report.answer_tokens == 9 * 3));
  CHECK(report.error == "too long");
  REQUIRE(study.votes.size() == 9);
  for (const Vote& vote : study.votes)
    CHECK(vote.verdict == (std::stoi(vote.item) % 2 == 0 ? Verdict::first_wins : Verdict::second_wins));
  CHECK(study.rows[0].item == "3");
  CHECK((study.rows[0].error == "too long" && study.rows[0].attempts == 1));
}

TEST_CASE("a question that is not answered in its group is asked again alone") {
  GroupStudy study;
  study.options.backoff_s = 0.001;
  study.busy = "2";
  JudgeRunReport report = study.run(questions(10));
  CHECK((report.answered == 9 && report.requests == 10));
  CHECK(study.groups == std::vector<size_t>{4, 4, 2});

  GroupStudy refused;
  refused.busy = "6";
  refused.first = ChatReply::Kind::refused;
  report = refused.run(questions(10));
  CHECK_THAT(report.stopped, Contains("refuses: not now"));
  CHECK(refused.groups == std::vector<size_t>{4, 4});  // nobody is asked after a refusal
  CHECK((report.answered == 6 && report.left == 4));

  GroupStudy slow;
  slow.options.per_minute = 60000;
  CHECK(slow.run(questions(3)).answered == 3);
  CHECK(slow.groups.empty());  // a rate is kept by asking one at a time
}

TEST_CASE("the budget holds for questions that are asked together") {
  GroupStudy study;
  study.options.max_tokens_spent = 62;  // of an ask 27 at most, and 8 in the end
  const JudgeRunReport report = study.run(questions(10));
  CHECK_THAT(report.stopped, Contains("budget"));
  CHECK(report.prompt_tokens + report.answer_tokens <= 62);
  CHECK(study.groups == std::vector<size_t>{2, 1, 1, 1, 1});
  CHECK((report.asked == 6 && report.answered == 5 && report.left == 5));
}

TEST_CASE("what a commit throws ends a study of questions that are asked together") {
  GroupStudy study;
  CHECK_THROWS_WITH(study.run(questions(10), 2), "the disk is full");
  CHECK(study.groups == std::vector<size_t>{4});
  CHECK(study.rows.size() == 2);  // the others never went out
}
