// A study against a server that misbehaves: too many requests, faults, cut connections, garbage, slowness.
#include <catch2/catch.hpp>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/json.h"
#include "core/base/test_data.h"
#include "eval/judge/judge_run.h"
#include "eval/judge/judgments.h"
#include "eval/judge/loopback_server.h"

using namespace qlora;
using Catch::Contains;
using test::completion;
using test::LoopbackServer;

namespace {

constexpr const char* kKey = "sk-very-secret";

class Study {
 public:
  explicit Study(int questions = 4, std::vector<std::string> systems = {"red", "blue"}) {
    ::setenv("no_proxy", "127.0.0.1", 1);
    study.judge = "gpt-4o-mini";
    study.prompts = default_judge_prompts(false);
    for (int i = 0; i < questions; ++i)
      study.questions.push_back(
          {std::to_string(i), fmt::format("question {}?", i), i == 0 ? "math" : "generic"});
    for (const std::string& system : systems) {
      std::string rows;
      for (int i = 0; i < questions; ++i)
        rows += fmt::format("{{\"question_id\": {}, \"text\": \"{} answers {} with {{prompt}}\"}}\n", i,
                            system, i);
      write_file(folder.path() / (system + ".jsonl"), rows);
      study.systems.push_back(book.add(folder.path() / (system + ".jsonl")));
    }
    options.backoff_s = 0.002;
  }
  Path out() const { return folder.path() / "out"; }
  std::vector<JudgeAsk> plan() const { return plan_study(study, book); }

  JudgeRunReport run(const LoopbackServer& server, double timeout_s = 5) {
    HttpChatOptions http;
    http.base_url = server.url();
    http.key = kKey;
    http.model = study.judge;
    http.timeout_s = timeout_s;
    JudgeJournal journal(out());
    const std::vector<JudgeAsk> asks = journal.missing(plan());
    options.spent_before = journal.spent();
    return run_study(
        asks, [&] { return make_http_chat_client(http); }, options,
        [&](const Vote* vote, const JudgeLedgerRow& row) { journal.commit(vote, row); });
  }
  std::vector<Vote> votes() const {
    std::vector<Vote> all;
    for (const JudgmentFile& file : load_judgments(std::vector<std::string>{out().string()}))
      all.insert(all.end(), file.votes.begin(), file.votes.end());
    return all;
  }
  std::string everything_written() const {
    std::string all;
    for (const auto& entry : std::filesystem::directory_iterator(out())) all += read_file(entry.path());
    return all;
  }

  test::TemporaryFolder folder;
  JudgeStudy study;
  AnswerBook book;
  JudgeRunOptions options;
};

}  // namespace

TEST_CASE("a study asks every pair in both orders once") {
  Study study(4, {"red", "blue", "green"});
  std::mutex mutex;
  std::set<std::string> bodies;
  std::string head;
  LoopbackServer server([&](const LoopbackServer::Request& request) {
    std::lock_guard lock(mutex);
    bodies.insert(request.body);
    head = request.head;
    return LoopbackServer::Reply{200, completion("so\\n2"), "", 0, "", false};
  });
  JudgeRunReport report = study.run(server);
  CHECK((report.asked == 24 && report.answered == 24 && report.failed == 0 && report.left == 0));
  CHECK((report.requests == 24 && report.prompt_tokens == 24 * 50 && report.answer_tokens == 24 * 10));
  CHECK(bodies.size() == 24);
  CHECK_THAT(head, Contains("POST /v1/chat/completions") && Contains("Authorization: Bearer sk-very-secret"));
  const Json body = parse_json(*bodies.begin(), "body");
  CHECK((body["model"] == "gpt-4o-mini" && body["temperature"] == 0.2 && body["max_tokens"] == 1024));
  // An answer's words are never taken for a place holder.
  CHECK_THAT(body["messages"][1]["content"].get<std::string>(), Contains("with {prompt}"));
  const std::vector<Vote> votes = study.votes();
  CHECK(votes.size() == 24);
  for (const Vote& vote : votes) {
    CHECK((vote.verdict == Verdict::second_wins && vote.judge == "gpt-4o-mini" && vote.raw == "so\n2"));
    CHECK(vote.first_answer == study.book.find(vote.first, vote.item)->id);
    CHECK(vote.prompt == (vote.item == "0" ? "3" : "1"));
  }
  CHECK(study.run(server).asked == 0);  // nothing is missing
  CHECK(server.requests() == 24);
}

TEST_CASE("a judge that misbehaves is asked again until it answers") {
  Study study;
  LoopbackServer server([](const LoopbackServer::Request& request) {
    LoopbackServer::Reply reply{200, completion("1"), "", 0, "", false};
    switch (request.number) {
      case 0:
        return LoopbackServer::Reply{
            429, "{\"error\": {\"message\": \"slow down\"}}", "Retry-After: 0.01\r\n", 0, "", false};
      case 1:
        return LoopbackServer::Reply{500, "oops", "", 0, "", false};
      case 2:
        reply.close_at_once = true;
        return reply;
      case 3:
        reply.cut_after = "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"choi";
        return reply;
      case 4:
        reply.body = "{\"choices\": [{\"message\": {\"content\": ";
        return reply;
      case 5:
        reply.body = "{\"choices\": []}";
        return reply;
      case 6:
        reply.cut_after = "this is no HTTP\r\n\r\n";
        return reply;
      case 7:
        reply.delay_s = 0.6;  // beyond the patience of the client
        return reply;
      default:
        return reply;
    }
  });
  study.options.concurrency = 2;
  study.options.attempts = 12;
  const JudgeRunReport report = study.run(server, 0.3);
  CHECK((report.answered == 8 && report.failed == 0 && report.requests >= 16));
  CHECK(study.votes().size() == 8);
}

TEST_CASE("a server says in seconds or by a date when to come again") {
  std::string headers;
  LoopbackServer server([&](const LoopbackServer::Request&) {
    return LoopbackServer::Reply{429, "slow down", headers, 0, "", false};
  });
  ::setenv("no_proxy", "127.0.0.1", 1);
  const auto client = make_http_chat_client({server.url(), "", "m"});
  auto told = [&](const std::string& all) {
    headers = all;
    return client->ask({"", "?"}).retry_after;
  };
  const std::string now = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
  CHECK(told("Retry-After: 7\r\n") == 7.0);
  CHECK(told("retry-after:0.5 \r\n") == 0.5);
  for (const char* date :
       {"Sun, 06 Nov 1994 08:50:07 GMT", "Sunday, 06-Nov-94 08:50:07 GMT", "Sun Nov  6 08:50:07 1994"})
    CHECK(told(now + "Retry-After: " + date + "\r\n") == 30.0);
  CHECK(told(now + "Retry-After: Sun, 06 Nov 1994 08:49:07 GMT\r\n") == 0.0);  // it has passed
  CHECK(told("Retry-After: Fri, 31 Dec 2100 23:59:59 GMT\r\n") > 1e8);         // by our clock
  for (const char* nothing :
       {"", "Retry-After: soon\r\n", "Retry-After: -1\r\n", "Retry-After: 5 minutes\r\n"})
    CHECK_FALSE(told(nothing));
}

TEST_CASE("an ask that fails for good is left to the next run and a refusal ends the run") {
  Study study;
  std::atomic<bool> healthy{false};
  LoopbackServer server([&](const LoopbackServer::Request& request) {
    auto about = [&](const char* question) { return request.body.find(question) != std::string::npos; };
    if (!healthy && about("question 2?")) return LoopbackServer::Reply{503, "busy", "", 0, "", false};
    if (!healthy && about("question 3?")) return LoopbackServer::Reply{400, "too long", "", 0, "", false};
    return LoopbackServer::Reply{200, completion("3"), "", 0, "", false};
  });
  study.options.attempts = 2;
  JudgeRunReport report = study.run(server);
  CHECK((report.answered == 4 && report.failed == 4 && report.left == 4 && report.stopped.empty()));
  CHECK_THAT(report.error, Contains("HTTP"));
  CHECK(report.requests == 4 + 2 * 2 + 2);  // what is impossible is not asked again
  CHECK_THAT(study.everything_written(), Contains("HTTP 503: busy"));
  healthy = true;
  report = study.run(server);
  CHECK((report.asked == 4 && report.answered == 4));
  CHECK(study.votes().size() == 8);

  Study refused;
  LoopbackServer strict([](const LoopbackServer::Request&) {
    return LoopbackServer::Reply{
        401, "{\"error\": {\"message\": \"wrong key sk-very-secret given\"}}", "", 0, "", false};
  });
  refused.options.concurrency = 1;
  report = refused.run(strict);
  CHECK((report.answered == 0 && report.asked == 1 && strict.requests() == 1));
  CHECK_THAT(report.stopped, Contains("HTTP 401: wrong key [key] given"));
  CHECK(refused.everything_written().find("very-secret") == std::string::npos);
  LoopbackServer indiscreet([](const LoopbackServer::Request&) {
    return LoopbackServer::Reply{200, completion("You are sk-very-secret.\\n1"), "", 0, "", false};
  });
  CHECK(refused.run(indiscreet).answered == 8);
  CHECK(refused.votes()[0].raw == "You are [key].\n1");
  CHECK(refused.everything_written().find("very-secret") == std::string::npos);
}

TEST_CASE("a study that was killed goes on where it stood") {
  Study study;
  LoopbackServer server([](const LoopbackServer::Request&) {
    return LoopbackServer::Reply{200, completion("1"), "", 0, "", false};
  });
  study.run(server);
  // What a killed process leaves: half a row, which nobody has counted.
  Path file;
  for (const auto& entry : std::filesystem::directory_iterator(study.out()))
    if (entry.path().filename().string().starts_with("red-vs-blue")) file = entry.path();
  const std::string content = read_file(file);
  std::filesystem::resize_file(file, content.size() - 10);
  const JudgeRunReport report = study.run(server);
  CHECK((report.asked == 1 && server.requests() == 9));
  CHECK(study.votes().size() == 8);
  // Other answers of a system are other questions to the judge.
  study.book = AnswerBook();
  for (const char* system : {"red", "blue"}) {
    std::string rows;
    for (int i = 0; i < 4; ++i)
      rows += fmt::format("{{\"question_id\": {}, \"text\": \"{} thinks again {}\"}}\n", i, system, i);
    write_file(study.folder.path() / (std::string(system) + ".jsonl"), rows);
    study.book.add(study.folder.path() / (std::string(system) + ".jsonl"));
  }
  CHECK(JudgeJournal(study.out()).missing(study.plan()).size() == 8);
}

TEST_CASE("votes answer the words that were asked and no others") {
  Study study(2);
  LoopbackServer server([](const LoopbackServer::Request&) {
    return LoopbackServer::Reply{200, completion("1"), "", 0, "", false};
  });
  CHECK(JudgeJournal(study.out()).missing(study.plan()).size() == 4);
  CHECK(study.everything_written().empty());  // who only looks leaves no word
  study.run(server);
  CHECK_THAT(read_file(study.out() / "prompts.jsonl"),
             Contains("\"judge\":\"gpt-4o-mini\",\"prompt_id\":\"1\""));
  const auto refuses = [&](const std::string& why) {
    CHECK_THROWS_WITH(JudgeJournal(study.out()).missing(study.plan()),
                      Contains(why) && Contains("gpt-4o-mini") && Contains("--out"));
  };
  const JudgeStudy asked = study.study;
  study.study.points = true;
  study.study.prompts = default_judge_prompts(true);
  refuses("has asked gpt-4o-mini for verdicts, and now asks for points");
  study.study = asked;
  study.study.prompts[0].instruction += " Be strict.";
  refuses("prompts.jsonl: prompt 1 has asked gpt-4o-mini with other words than now");
  // Another id, or another judge, is another question; both stand in one journal.
  for (JudgePrompt& prompt : study.study.prompts) prompt.id = "strict-" + prompt.id;
  CHECK(study.run(server).answered == 4);
  CHECK(study.votes().size() == 8);
  study.study = asked;
  CHECK(study.run(server).asked == 0);
  // A journal from before prompts.jsonl is read as it always was, and learns its prompts with the next vote.
  std::filesystem::remove(study.out() / "prompts.jsonl");
  CHECK(study.run(server).asked == 0);
  study.study.points = true;
  study.study.prompts = default_judge_prompts(true);
  refuses("for verdicts, and now asks for points");
}

TEST_CASE("an answer counts for exactly what was asked and others are set aside") {
  Study study(3);
  study.study.model = "gpt-4o-mini";
  LoopbackServer server([](const LoopbackServer::Request&) {
    return LoopbackServer::Reply{200, completion("1"), "", 0, "", false};
  });
  study.run(server);
  const JudgeStudy asked = study.study;
  auto missing = [&] { return JudgeJournal(study.out()).missing(study.plan()).size(); };
  CHECK(missing() == 0);
  const std::vector<std::pair<const char*, std::function<void(JudgeStudy&)>>> changes = {
      {"model", [](JudgeStudy& s) { s.model = "another"; }},
      {"temperature", [](JudgeStudy& s) { s.temperature = 0; }},
      {"max_tokens", [](JudgeStudy& s) { s.max_tokens = 512; }},
      {"question", [](JudgeStudy& s) {
         for (JudgeQuestion& q : s.questions) q.text += "!";
       }}};
  for (const auto& [what, change] : changes) {
    INFO(what);
    study.study = asked;
    change(study.study);
    CHECK(missing() == 6);
  }
  // Words under an id that a journal without prompts.jsonl does not know.
  study.study = asked;
  for (JudgePrompt& prompt : study.study.prompts) prompt.instruction += ".";
  const std::string prompts = read_file(study.out() / "prompts.jsonl");
  std::filesystem::remove(study.out() / "prompts.jsonl");
  CHECK(missing() == 6);
  write_file(study.out() / "prompts.jsonl", prompts);
  study.study = asked;
  study.study.questions[1].text = "an edited question?";
  CHECK(missing() == 2);
  CHECK(JudgeJournal(study.out()).other_votes(study.plan()) == 2);
  CHECK(study.votes().size() == 6);  // counting moves nothing
  CHECK(JudgeJournal(study.out()).set_aside_other_votes(study.plan()) == 2);
  CHECK(study.votes().size() == 4);
  CHECK(study.run(server).answered == 2);
  CHECK(study.votes().size() == 6);
  CHECK(JudgeJournal(study.out()).set_aside_other_votes(study.plan()) == 0);
  const Path aside = study.out() / "superseded";
  CHECK(load_judgments(std::vector<std::string>{aside.string()}).size() == 2);

  // Votes whose ids are those of an older version are asked again too, and stand aside but once.
  for (const char* name : {"red-vs-blue", "blue-vs-red"}) {
    const Path file = study.out() / fmt::format("{}-gpt.4o.mini-reviewer-threeclass.jsonl", name);
    std::string text = read_file(file);
    for (size_t at = text.find("\"review_id\":\""); at != std::string::npos;
         at = text.find("\"review_id\":\"", at + 1))
      text.replace(at + 13, 5, "older");
    write_file(file, text);
    write_file(aside / file.filename(), read_file(aside / file.filename()) + text);
  }
  CHECK(missing() == 6);
  CHECK(JudgeJournal(study.out()).set_aside_other_votes(study.plan()) == 6);
  for (const char* name : {"red-vs-blue", "blue-vs-red"})
    CHECK(
        read_judgments(aside / fmt::format("{}-gpt.4o.mini-reviewer-threeclass.jsonl", name)).votes.size() ==
        4);
  CHECK(study.run(server).answered == 6);
}

TEST_CASE("the budget is never exceeded and the rate and the concurrency are kept") {
  Study study(10);
  LoopbackServer server([](const LoopbackServer::Request&) {
    return LoopbackServer::Reply{200, completion("1", 300, 100), "", 0.005, "", false};
  });
  study.study.max_tokens = 100;
  study.options.concurrency = 3;
  study.options.price_prompt = 10;
  study.options.price_answer = 30;
  study.options.max_money_spent = 0.1;  // 0.006 an ask, about 0.01 reserved
  JudgeRunReport report = study.run(server);
  CHECK_THAT(report.stopped, Contains("budget"));
  CHECK(report.money <= 0.1);
  CHECK(report.money > 0.06);
  CHECK(report.left == 20 - report.answered);
  CHECK(server.most_at_once() <= 3);
  // The budget is the study's, not the run's: what the ledger holds is spent.
  const JudgeSpent spent = JudgeJournal(study.out()).spent();
  CHECK((spent.tokens == report.prompt_tokens + report.answer_tokens && spent.money == Approx(report.money)));
  const int answered = server.requests();
  report = study.run(server);
  CHECK((report.asked == 0 && server.requests() == answered));
  CHECK_THAT(report.stopped, Contains(fmt::format("{0} tokens, {0} of them by earlier runs", spent.tokens)) &&
                                 Contains("the next question may cost up to"));
  study.options.max_money_spent = 0;
  study.options.max_tokens_spent = spent.tokens + 4000;
  report = study.run(server);
  CHECK((report.prompt_tokens + report.answer_tokens <= 4000 && report.answered >= 2));
  CHECK(study.run(server).asked == 0);

  // An endpoint that counts no tokens is taken at the most that it can have used.
  LoopbackServer silent([](const LoopbackServer::Request&) {
    return LoopbackServer::Reply{200, completion("1", 0, 0), "", 0, "", false};
  });
  Study uncounted(3);
  report = uncounted.run(silent);
  CHECK((report.answered == 6 && report.prompt_tokens > 6 * 200 && report.answer_tokens == 6));

  Study slow(2);
  slow.options.per_minute = 1200;  // one every 50 ms
  const auto start = std::chrono::steady_clock::now();
  CHECK(slow.run(server).answered == 4);
  CHECK(std::chrono::steady_clock::now() - start >= std::chrono::milliseconds(145));
  study.options.max_money_spent = 1;
  study.options.price_prompt = study.options.price_answer = 0;
  CHECK_THROWS_WITH(study.run(server), Contains("prices"));
}

TEST_CASE("a judge is left alone for as long as it asks or the run ends") {
  // Our own pause ends at a minute, the judge's does not.
  const JudgeRunOptions usual;
  ChatReply busy;
  CHECK(pause_after(20, busy, usual, 1) == 60);
  busy.retry_after = 599.5;
  CHECK(pause_after(1, busy, usual, 1) == 599.5);
  busy.retry_after = 0;
  CHECK(pause_after(1, busy, usual, 1) >= 0.75);

  Study study(1);
  std::atomic<const char*> wait{"Retry-After: 601\r\n"};
  LoopbackServer server([&](const LoopbackServer::Request& request) {
    if (request.number == 1) return LoopbackServer::Reply{200, completion("1"), "", 0, "", false};
    return LoopbackServer::Reply{429, "slow down", wait.load(), 0, "", false};
  });
  study.options.concurrency = 1;
  study.options.attempts = 2;
  JudgeRunReport report = study.run(server);
  CHECK((report.asked == 1 && report.requests == 1 && report.left == 2));
  CHECK_THAT(report.stopped,
             Contains("asked again in 601 s, and the longest wait is 600 s: HTTP 429: slow down"));
  study.options.longest_wait_s = 0.1;
  wait = "Retry-After: 0.2\r\n";
  report = study.run(server);
  CHECK((report.answered == 1 && report.failed == 1 && server.requests() == 3));
  CHECK_THAT(report.stopped, Contains("0.2 s"));
}

TEST_CASE("an error on the disk ends the run and unread verdicts are kept as invalid") {
  Study study;
  LoopbackServer server([](const LoopbackServer::Request&) {
    return LoopbackServer::Reply{200, completion("I cannot say."), "", 0, "", false};
  });
  const std::vector<JudgeAsk> asks = study.plan();
  HttpChatOptions http{server.url(), "", "m"};
  CHECK_THROWS_WITH(run_study(
                        asks, [&] { return make_http_chat_client(http); }, study.options,
                        [](const Vote*, const JudgeLedgerRow&) { fail(ErrorKind::failure, "disk full"); }),
                    Contains("disk full"));
  const JudgeRunReport report = study.run(server);
  CHECK((report.answered == 8 && report.invalid == 8));
  for (const Vote& vote : study.votes()) CHECK((!vote.valid() && vote.raw == "I cannot say."));
  http.base_url = "ftp://127.0.0.1";
  CHECK_THROWS_WITH(make_http_chat_client(http), Contains("http://"));
  Study other;
  other.options.parser = "scores-2";
  CHECK_THROWS_WITH(other.run(server), Contains("asked for verdicts"));
}

TEST_CASE("prompts and questions are read and checked") {
  test::TemporaryFolder dir;
  Path path = dir.path() / "prompts.jsonl";
  const std::string good =
      "{\"prompt_id\": 1, \"system_prompt\": \"s\", \"prompt_template\": "
      "\"{question}|{answer_1}|{answer_2}|{prompt}|{x}\", "
      "\"defaults\": {\"prompt\": \"p\"}, \"category\": \"general\"}\n";
  write_file(path, good);
  const std::vector<JudgePrompt> prompts = read_judge_prompts(path);
  CHECK(fill_prompt(prompts[0], "q{answer_1}", "{question}", "b") == "q{answer_1}|{question}|b|p|{x}");
  CHECK(prompt_for(prompts, "cooking").id == "1");
  write_file(path, good + good);
  CHECK_THROWS_WITH(read_judge_prompts(path), Contains("prompts.jsonl:2: a second prompt"));
  write_file(path, good + std::string(good).replace(good.find("general"), 7, "coding"));
  CHECK_THROWS_WITH(read_judge_prompts(path), Contains("prompts.jsonl:2: a second prompt with prompt_id 1"));
  write_file(path, "{\"prompt_id\": 1, \"system_prompt\": \"s\", \"prompt_template\": \"{question}\"}\n");
  CHECK_THROWS_WITH(read_judge_prompts(path), Contains(":1: `prompt_template` has no {answer_1}"));

  Path questions = dir.path() / "questions.jsonl";
  write_file(
      questions,
      "{\"question_id\": 1, \"turns\": [\"one\", \"two\"], \"category\": \"math\"}\n{\"message_id\": \"m\", "
      "\"text\": \"t\"}\n");
  CHECK(read_judge_questions(questions)[0].text == "one");
  CHECK(read_judge_questions(questions)[1].item == "m");
  const Path alpaca = Path(test::source_folder()) / "eval/judge/fixtures";
  const std::vector<JudgeQuestion> instructions = read_judge_questions(alpaca / "reference_outputs.json");
  AnswerBook outputs;
  CHECK(outputs.add(alpaca / "model_outputs.json") == "red");
  CHECK(instructions.at(2).text == "Greet in Danish.");
  CHECK(outputs.find("red", instructions[2].item)->text == "Goddag, verden.");
  CHECK_THROWS_WITH(outputs.add(alpaca / "annotations.json"),
                    Contains("annotations.json:2") && Contains("two"));
  write_file(questions, "{\"question_id\": 1, \"text\": \"t\"}\n{\"question_id\": 1, \"text\": \"u\"}\n");
  CHECK_THROWS_WITH(read_judge_questions(questions),
                    Contains("questions.jsonl:2: the question id 1 is that of line 1"));
  for (bool points : {false, true})
    for (const JudgePrompt& prompt : default_judge_prompts(points))
      CHECK_THAT(fill_prompt(prompt, "Q", "A", "B"),
                 Contains("Q") && Contains(points ? "two numbers" : "single digit"));

  Study study;
  study.study.systems = {"red", "red"};
  CHECK_THROWS_WITH(study.plan(), Contains("twice"));
  study.study.systems = {"red", "grey"};
  CHECK_THROWS_WITH(study.plan(), Contains("grey has no answer to question 0"));
}
