#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "core/base/check.h"
#include "core/base/test_data.h"
#include "results/query.h"
#include "results/sqlite.h"
#include "results/store.h"
#include "results/test_rows.h"

using namespace qlora;
using namespace qlora::test;
using Catch::Contains;

namespace {

struct Fixture {
  TemporaryFolder dir;
  Path path = dir.path() / "r.db";
  Store store = Store::open(path);
  std::vector<RunRow> rows = {run_row("one", 8), run_row("two", 16), run_row("three", 8, 1)};

  int64_t count(const std::string& sql) { return std::get<int64_t>(run_query(path, sql).rows.at(0).at(0)); }
};

double real(const Table& table, size_t row, const char* column) {
  return std::get<double>(table.at(row, column));
}
std::string text(const Table& table, size_t row, const char* column) {
  return std::get<std::string>(table.at(row, column));
}

TournamentRow tournament_row() {
  TournamentRow row;
  row.key = key_of("tournament");
  row.name = "sample";
  row.params_json = R"({"k": 4, "orders": 10})";
  row.matches = 2;
  row.invalid = 1;
  row.ratings = {{"red", 1010.5, 3.0, 990.0, 1030.0, "prompt bootstrap", 2, 1, 0, 1},
                 {"blue", 989.5, 3.0, 970.0, 1010.0, "prompt bootstrap", 2, 0, 1, 1}};
  row.files = {{"red-vs-blue.jsonl",
                key_of("file"),
                {vote_row("1", 1, 1), vote_row("2", 3, 2), vote_row("3", -1, 3)}}};
  return row;
}

}  // namespace

TEST_CASE_METHOD(Fixture, "declaring a sweep again keeps what its runs have become") {
  store.declare_sweep("s", "yaml: 1", rows);
  store.set_run_state(rows[0].key, RunState::finished);
  store.set_run_state(rows[1].key, RunState::failed, "oom");
  store.declare_sweep("s", "yaml: 1", rows);
  SweepStatus status = store.sweep_status("s");
  REQUIRE(status.runs.size() == 3);
  CHECK(status.runs[0].state == RunState::finished);
  CHECK(status.runs[1].reason == "oom");
  CHECK(status.runs[2].state == RunState::pending);
  CHECK(status.count(RunState::finished) == 1);

  // Another sweep shares runs; the first may shrink.
  store.declare_sweep("other", "", std::span(rows).first(2));
  store.declare_sweep("s", "yaml: 2", std::span(rows).subspan(1));
  CHECK(store.sweep_status("s").runs.size() == 2);
  CHECK(store.sweep_status("other").runs[0].state == RunState::finished);
  CHECK(store.sweep_names() == std::vector<std::string>{"other", "s"});
  CHECK(count("SELECT count(*) FROM run") == 3);

  rows.push_back(rows[0]);
  CHECK_THROWS_WITH(store.declare_sweep("twice", "", rows), Contains("configuration of another run"));
  CHECK(count("SELECT count(*) FROM sweep") == 2);
  CHECK_THROWS_WITH(store.sweep_status("othr"), Contains("did you mean `other`"));
}

TEST_CASE_METHOD(Fixture, "a finished run stays finished") {
  store.declare_sweep("s", "", rows);
  CHECK(store.begin_attempt(rows[0].key, {}) == 1);
  CHECK(store.find_run(rows[0].key)->state == RunState::running);
  store.set_run_state(rows[0].key, RunState::finished);
  store.set_run_state(rows[0].key, RunState::finished);
  CHECK_THROWS_WITH(store.set_run_state(rows[0].key, RunState::pending), Contains("has finished"));
  CHECK_THROWS_AS(store.begin_attempt(rows[0].key, {}), Error);
  CHECK(count("SELECT count(*) FROM attempt") == 1);
  CHECK_THROWS_WITH(store.set_run_state(key_of("unknown"), RunState::failed), Contains("not declared"));
  CHECK_FALSE(store.find_run(key_of("unknown")));
}

TEST_CASE_METHOD(Fixture, "attempts are numbered and those left open are found") {
  store.declare_sweep("s", "", rows);
  AttemptStart start;
  start.pid = 77;
  start.hostname = "box";
  start.host_json = R"({"cores": 2})";
  start.estimated_bytes = 1000;
  CHECK(store.begin_attempt(rows[0].key, start) == 1);
  AttemptEnd end;
  end.outcome = "killed";
  end.signal = 9;
  store.end_attempt(rows[0].key, 1, end);
  CHECK_THROWS_WITH(store.end_attempt(rows[0].key, 1, end), Contains("no open attempt"));
  start.start_step = 10;
  CHECK(store.begin_attempt(rows[0].key, start) == 2);
  std::vector<AttemptRow> open = store.open_attempts();
  REQUIRE(open.size() == 1);
  CHECK(open[0].attempt == 2);
  CHECK(open[0].start.pid == 77);
  CHECK(open[0].start.start_step == 10);
  CHECK(open[0].start.estimated_bytes == 1000);
  CHECK(store.show("one").attempts.rows.size() == 2);
  CHECK(count("SELECT count(*) FROM host") == 1);
  end.outcome = "vanished";
  CHECK_THROWS_AS(store.end_attempt(rows[0].key, 2, end), Error);
}

TEST_CASE_METHOD(Fixture, "steps are written in batches and a step written again replaces the first") {
  store.declare_sweep("s", "", rows);
  for (int64_t step = 1; step <= 99; ++step) {
    StepRow row = step_row(step, 3.0 - 0.01 * static_cast<double>(step));
    store.write_steps(rows[0].key, std::span(&row, 1));
  }
  CHECK(count("SELECT count(*) FROM curves") < 99);  // a slow machine may have passed a second
  store.flush();
  CHECK(count("SELECT count(*) FROM curves") == 99);
  StepRow again[] = {step_row(99, 1.5), step_row(100, std::numeric_limits<double>::quiet_NaN())};
  store.write_steps(rows[0].key, again);
  store.flush();
  RunDetails details = store.show("one");
  REQUIRE(details.curve.rows.size() == 100);
  CHECK(real(details.curve, 98, "loss") == 1.5);
  CHECK(std::holds_alternative<std::monostate>(details.curve.at(99, "loss")));
  CHECK(std::get<int64_t>(details.curve.at(99, "tokens")) == 100);
  CHECK(details.run.last_step == 100);
  CHECK_FALSE(details.run.last_loss);
  CHECK_THROWS_AS(store.write_steps(key_of("unknown"), again), Error);
}

TEST_CASE_METHOD(Fixture, "waiting steps are written when the store closes") {
  store.declare_sweep("s", "", rows);
  StepRow row = step_row(1, 2.0);
  {
    Store second = Store::open(path);
    second.write_steps(rows[1].key, std::span(&row, 1));
  }
  CHECK(store.find_run(rows[1].key)->last_loss == 2.0);
}

TEST_CASE_METHOD(Fixture, "an evaluation is stored once and whole") {
  store.declare_sweep("s", "", rows);
  EvalRow row = mmlu_row(run_subject("one"), 20, 3);
  CHECK_FALSE(store.has_evaluation(row.key));
  store.write_evaluation(row);
  CHECK(store.has_evaluation(row.key));
  store.write_evaluation(row);
  CHECK(count("SELECT count(*) FROM evaluation") == 1);
  CHECK(count("SELECT count(*) FROM prediction") == 4);
  CHECK(count("SELECT sum(correct) FROM prediction") == 3);
  // Items and prompts are shared between evaluations of one task.
  store.write_evaluation(mmlu_row(base_subject(), 0, 1));
  CHECK(count("SELECT count(*) FROM item") == 4);
  CHECK(count("SELECT count(*) FROM prompt") == 4);
  CHECK(count("SELECT count(*) FROM prediction") == 8);
  Table scores = run_query(path, "SELECT scores FROM prediction LIMIT 1");
  const std::vector<AggregateRow> aggregates = store.aggregates(row.key);
  REQUIRE(aggregates.size() == 3);
  CHECK((aggregates[1].metric == "acc" && aggregates[1].subject == "anatomy" && aggregates[1].n == 2));
  CHECK((aggregates[1].value == 1.0 && aggregates[1].standard_error == 0.1));
  CHECK((aggregates[2].metric == "acc_macro" && !aggregates[2].standard_error));
  CHECK(store.aggregates(key_of("no such evaluation")).empty());
  CHECK(std::get<Bytes>(scores.rows[0][0]) ==
        Bytes{0, 0, 0, 0, 0, 0, 0x80, 0xbf, 0, 0, 0x20, 0xc0, 0, 0, 0x40, 0x40});

  const std::vector<PredictionRow> kept = store.predictions(row.key);
  REQUIRE(kept.size() == 4);
  CHECK((kept[3].subject == "virology" && kept[3].ordinal == 1 && kept[3].prompt == key_of("prompt 3")));
  CHECK((kept[2].gold == 2 && kept[2].pred == 2 && kept[2].correct && !kept[3].correct));
  CHECK(kept[0].scores == std::vector<float>{0.f, -1.f, -2.5f, 3.f});
  CHECK((!kept[0].text && kept[0].extracted.empty() && kept[0].greedy.empty() && !kept[0].log_sum_exp));

  EvalRow changed = mmlu_row(run_subject("two"), 20, 3);
  changed.predictions[3].gold = 0;
  CHECK_THROWS_WITH(store.write_evaluation(changed), Contains("virology question 1"));
  CHECK(count("SELECT count(*) FROM evaluation") == 2);  // nothing of the refused one
  CHECK(count("SELECT count(*) FROM subject_model") == 2);
  CHECK_THROWS_WITH(store.write_evaluation(mmlu_row(run_subject("unknown"), 1, 1)), Contains("not declared"));
  CHECK(count("SELECT count(*) FROM pragma_foreign_key_list('prediction')") == 3);
}

TEST_CASE_METHOD(Fixture, "texts and what was read out of them are stored with an answer") {
  EvalRow row = mmlu_row(base_subject(), 0, 3);
  row.predictions[0].text = "";  // the model had nothing to say
  row.predictions[1].text = "It is 5.\n\"\xc3\xa9\"";
  row.predictions[1].extracted = {{"strict", "[invalid]"}, {"flexible", "5"}};
  row.predictions[1].greedy = {0, 1, 0, 0};
  row.predictions[1].log_sum_exp = 12.0625;
  store.write_evaluation(row);
  const std::vector<PredictionRow> kept = store.predictions(row.key);
  CHECK((kept[0].text == "" && kept[0].extracted.empty()));
  CHECK(kept[1].text == row.predictions[1].text);
  REQUIRE(kept[1].extracted.size() == 2);
  CHECK((kept[1].extracted[0].filter == "strict" && kept[1].extracted[0].answer == "[invalid]"));
  CHECK((kept[1].extracted[1].filter == "flexible" && kept[1].extracted[1].answer == "5"));
  CHECK((kept[1].greedy == row.predictions[1].greedy && kept[1].log_sum_exp == 12.0625));
  CHECK_FALSE(kept[2].text);
  CHECK(store.predictions(key_of("no such evaluation")).empty());
  const Table view = run_query(path,
                               "SELECT text, extracted ->> '$.flexible' AS number FROM predictions_view "
                               "WHERE part = 'anatomy' AND ordinal = 1");
  CHECK((text(view, 0, "text") == row.predictions[1].text && text(view, 0, "number") == "5"));
}

TEST_CASE_METHOD(Fixture, "answers of an evaluation stay until it is whole") {
  const EvalRow row = mmlu_row(base_subject(), 0, 3);
  const std::vector<PartialAnswer> first = {{key_of("q1"), std::string("\0a", 2)}, {key_of("q2"), "b"}};
  store.write_partial_answers(row.key, first);
  store.write_partial_answers(row.key,
                              std::vector<PartialAnswer>{{key_of("q2"), "other"}, {key_of("q3"), ""}});
  store.write_partial_answers(key_of("another"), first);
  std::map<Digest, std::string> kept;
  for (const PartialAnswer& a : store.partial_answers(row.key)) kept[a.request] = a.answer;
  CHECK(kept == std::map<Digest, std::string>{
                    {key_of("q1"), std::string("\0a", 2)}, {key_of("q2"), "b"}, {key_of("q3"), ""}});
  store.write_evaluation(row);
  CHECK(store.partial_answers(row.key).empty());
  CHECK(store.partial_answers(key_of("another")).size() == 2);
  // Late answers have nothing left to wait for.
  store.write_partial_answers(row.key, first);
  CHECK(store.partial_answers(row.key).empty());
}

TEST_CASE_METHOD(Fixture, "the leaderboard shows runs and bases best first") {
  store.declare_sweep("s", "", std::span(rows).first(2));
  store.declare_sweep("rest", "", std::span(rows).subspan(2));
  StepRow steps[] = {step_row(1, 3.0), step_row(2, 2.5)};
  store.write_steps(rows[0].key, steps);
  store.write_evaluation(loss_row(run_subject("one"), 0, 2.9));
  store.write_evaluation(loss_row(run_subject("one"), 2, 2.4));
  store.write_evaluation(mmlu_row(run_subject("one"), 1, 4));  // an earlier state does not count
  store.write_evaluation(mmlu_row(run_subject("one"), 2, 2));
  store.write_evaluation(mmlu_row(base_subject(), 0, 3));
  Table board = store.leaderboard();
  REQUIRE(board.rows.size() == 4);
  CHECK(text(board, 0, "name") == "tiny (nf4)");
  CHECK(text(board, 0, "state") == "base");
  CHECK(real(board, 0, "mmlu") == 0.75);
  CHECK(text(board, 1, "name") == "one");
  CHECK(real(board, 1, "mmlu") == 0.5);
  CHECK(real(board, 1, "mmlu_se") == 0.2);
  CHECK(real(board, 1, "mmlu_macro") == 0.5);
  CHECK(std::get<int64_t>(board.at(1, "mmlu_n")) == 4);
  CHECK(text(board, 1, "protocol") == "hendrycks 5-shot");
  CHECK(real(board, 1, "loss_before") == 2.9);
  CHECK(real(board, 1, "loss_after") == 2.4);
  CHECK(real(board, 1, "train_loss") == 2.5);
  CHECK(std::get<int64_t>(board.at(1, "tokens")) == 200);
  CHECK(real(board, 1, "seconds") == 0.5);
  CHECK(std::get<int64_t>(board.at(1, "lora_r")) == 8);

  CHECK(store.leaderboard("s").rows.size() == 3);  // two runs and their base
  // A base is known by what the runs that stand on it were scored as.
  SubjectModel other = {key_of("other base"), false, "tiny (nf4+dq)", "/models/tiny", "nf4+dq"};
  store.write_evaluation(mmlu_row(other, 0, 1));
  CHECK(store.leaderboard("s").rows.size() == 3);
  store.write_evaluation(mmlu_row({rows[1].key, true, "two", "/models/tiny", "nf4+dq"}, 2, 0));
  Table both = store.leaderboard("s");
  CHECK(both.rows.size() == 4);
  CHECK(text(both, 3, "name") == "two");
  CHECK(text(both, 3, "quant") == "nf4+dq");
  board = store.leaderboard();
  CHECK_THROWS_WITH(store.leaderboard("res"), Contains("did you mean `rest`"));
  CHECK(Store::open_read_only(path).leaderboard().rows == board.rows);
  CHECK(count("SELECT count(*) FROM mmlu_by_subject WHERE subject = 'anatomy'") == 5);
  CHECK(count("SELECT count(*) FROM run_parameters WHERE parameter = 'lora_r' AND value = 16") == 1);
}

TEST_CASE_METHOD(Fixture, "a run of eight bits stands on the int8 base and on no other") {
  const RunRow run = {
      key_of("eight"), "eight",
      R"({"model_name_or_path": "tiny", "bits": 8, "quant_type": "int8", "double_quant": false})"};
  store.declare_sweep("s", "", std::span(&run, 1));
  store.write_evaluation(mmlu_row({key_of("int8"), false, "tiny (int8)", "tiny", "int8"}, 0, 3));
  store.write_evaluation(mmlu_row({key_of("none"), false, "tiny", "tiny", "none"}, 0, 4));
  const Table board = store.leaderboard("s");
  REQUIRE(board.rows.size() == 2);
  CHECK(text(board, 0, "name") == "tiny (int8)");
  CHECK(text(board, 1, "name") == "eight");
  CHECK(text(board, 1, "quant") == "int8");
}

TEST_CASE_METHOD(Fixture, "a run is found by its name or by the start of its key") {
  store.declare_sweep("s", "", rows);
  CHECK(store.resolve_run("two").key == rows[1].key);
  CHECK(store.resolve_run(hex(rows[1].key).substr(0, 8)).name == "two");
  CHECK(store.resolve_run(hex(rows[1].key)).name == "two");
  CHECK_THROWS_WITH(store.resolve_run("thre"), Contains("did you mean `three`"));
  RunRow namesake = run_row("one", 64);
  namesake.key = key_of("another one");
  store.declare_run(namesake);
  CHECK_THROWS_WITH(store.resolve_run("one"),
                    Contains("2 runs") && Contains(hex(namesake.key).substr(0, 16)));
}

TEST_CASE_METHOD(Fixture, "a tournament is stored once with its votes") {
  TournamentRow row = tournament_row();
  CHECK_FALSE(store.has_tournament(row.key));
  store.write_tournament(row);
  store.write_tournament(row);
  CHECK(store.has_tournament(row.key));
  CHECK(count("SELECT count(*) FROM votes_view WHERE system_a = 'red' AND judge = 'gpt-4'") == 3);
  Table ratings = store.ratings("sample");
  REQUIRE(ratings.rows.size() == 2);
  CHECK(text(ratings, 0, "system") == "red");
  CHECK(std::get<int64_t>(ratings.at(1, "rank")) == 2);
  CHECK(real(ratings, 1, "ci_lo") == 970.0);

  // The same files with other parameters: the newest counts, the votes are stored once.
  row.key = key_of("later");
  row.ratings[1].rating = 1020;
  row.ratings[0].ci_lo = row.ratings[0].ci_hi = std::nullopt;
  row.ratings[0].ci_method = "";
  store.write_tournament(row);
  CHECK(text(store.ratings(), 0, "system") == "blue");
  CHECK(store.ratings().rows.size() == 2);
  CHECK(count("SELECT count(*) FROM vote") == 3);
  CHECK(text(store.ratings_of(row.key), 0, "system") == "blue");
  CHECK(text(store.ratings_of(key_of("tournament")), 0, "system") == "red");
  CHECK(store.ratings_of(key_of("none")).empty());

  CHECK_THROWS_WITH(store.ratings("sampel"), Contains("did you mean `sample`"));

  row.key = key_of("half an interval");
  row.ratings[0].ci_lo = 1.0;
  CHECK_THROWS_AS(store.write_tournament(row), Error);
  CHECK(count("SELECT count(*) FROM tournament") == 2);
}

TEST_CASE_METHOD(Fixture, "a tournament is stored by every model of ratings and by no other") {
  TournamentRow row = tournament_row();
  for (const char* method : {"elo", "bt", "rao-kupper", "davidson"}) {
    row.method = row.name = method;
    row.key = key_of(method);
    store.write_tournament(row);
    CHECK(text(store.ratings(method), 0, "system") == "red");
  }
  CHECK(count("SELECT count(*) FROM elo_latest WHERE method = tournament") == 8);
  row.method = "dice";
  row.key = key_of("dice");
  CHECK_THROWS_AS(store.write_tournament(row), Error);
}
