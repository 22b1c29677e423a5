// Evaluations: one transaction each, items and prompts shared between them.
#include <cmath>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/base/check.h"
#include "results/store_impl.h"

namespace qlora {

namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);  // of prediction.scores

std::optional<double> finite(std::optional<double> value) {
  return value && std::isfinite(*value) ? value : std::nullopt;
}

}  // namespace

int64_t subject_model_id(const Database& db, const SubjectModel& subject) {
  Statement find(db, "SELECT subject_model_id FROM subject_model WHERE subject_key = ?");
  if (find.bind(subject.key).step()) return find.integer(0);
  std::optional<int64_t> run;
  if (subject.is_run) {
    Statement run_id(db, "SELECT run_id FROM run WHERE run_key = ?");
    QLORA_CHECK(run_id.bind(subject.key).step(), failure, "{}: run {} ({}) is not declared",
                db.path().string(), subject.name, hex(subject.key));
    run = run_id.integer(0);
  }
  Statement insert(
      db,
      "INSERT INTO subject_model(subject_key, name, model, quant, run_id) VALUES (?, ?, ?, ?, ?) "
      "RETURNING subject_model_id");
  insert.bind(subject.key, subject.name, subject.model, subject.quant, run).step();
  return insert.integer(0);
}

int64_t task_id(const Database& db, const TaskRow& task) {
  Statement find(db, "SELECT task_id FROM task WHERE name = ? AND data_sha256 = ?");
  if (find.bind(task.name, task.data).step()) return find.integer(0);
  Statement insert(
      db, "INSERT INTO task(name, version, kind, data_sha256) VALUES (?, ?, ?, ?) RETURNING task_id");
  insert.bind(task.name, task.version, task.kind, task.data).step();
  return insert.integer(0);
}

namespace {

// Ids of a task's subjects, items and prompts; missing ones are made.
class Ids {
 public:
  Ids(const Database& db, int64_t task, const std::string& task_name)
      : task_(task),
        task_name_(task_name),
        find_subject_(db, "SELECT subject_id FROM subject WHERE task_id = ? AND name = ?"),
        make_subject_(db, "INSERT INTO subject(task_id, name) VALUES (?, ?) RETURNING subject_id"),
        find_item_(db, "SELECT item_id, gold FROM item WHERE subject_id = ? AND ordinal = ?"),
        make_item_(db, "INSERT INTO item(subject_id, ordinal, gold) VALUES (?, ?, ?) RETURNING item_id"),
        find_prompt_(db, "SELECT prompt_id FROM prompt WHERE sha256 = ?"),
        make_prompt_(db, "INSERT INTO prompt(sha256) VALUES (?) RETURNING prompt_id") {}

  int64_t subject(const std::string& name) {
    auto [place, fresh] = subjects_.try_emplace(name, 0);
    if (fresh)
      place->second = find_subject_.bind(task_, name).step() ? find_subject_.integer(0)
                                                             : make(make_subject_, task_, name);
    return place->second;
  }

  int64_t item(const std::string& subject_name, int64_t ordinal, int64_t gold) {
    int64_t in = subject(subject_name);
    if (!find_item_.bind(in, ordinal).step()) return make(make_item_, in, ordinal, gold);
    QLORA_CHECK(
        find_item_.integer(1) == gold, data,
        "task {}, {} question {}: the right answer is {}, but {} in the store; the data has changed under "
        "the same hash",
        task_name_, subject_name, ordinal, gold, find_item_.integer(1));
    return find_item_.integer(0);
  }

  int64_t prompt(const Digest& hash) {
    return find_prompt_.bind(hash).step() ? find_prompt_.integer(0) : make(make_prompt_, hash);
  }

 private:
  template <class... Values>
  static int64_t make(Statement& insert, const Values&... values) {
    insert.bind(values...).step();
    int64_t id = insert.integer(0);
    insert.step();
    return id;
  }

  int64_t task_;
  std::string task_name_;
  std::map<std::string, int64_t> subjects_;
  Statement find_subject_, make_subject_, find_item_, make_item_, find_prompt_, make_prompt_;
};

Bytes bytes_of(const std::vector<float>& scores) {
  Bytes bytes(scores.size() * sizeof(float));
  if (!scores.empty()) std::memcpy(bytes.data(), scores.data(), bytes.size());
  return bytes;
}

std::vector<float> floats_of(const Bytes& bytes) {
  std::vector<float> scores(bytes.size() / sizeof(float));
  if (!scores.empty()) std::memcpy(scores.data(), bytes.data(), scores.size() * sizeof(float));
  return scores;
}

std::optional<Bytes> greedy_of(const PredictionRow& p) {
  return p.greedy.empty() ? std::nullopt : std::optional<Bytes>({p.greedy.begin(), p.greedy.end()});
}

// An object: the answer by filter.
std::optional<std::string> extracted_of(const PredictionRow& p) {
  if (p.extracted.empty()) return std::nullopt;
  nlohmann::ordered_json json;
  for (const ExtractedRow& e : p.extracted) json[e.filter] = e.answer;
  return json.dump();
}

std::vector<ExtractedRow> extracted_from(const std::string& text) {
  std::vector<ExtractedRow> rows;
  if (text.empty()) return rows;
  const auto json = nlohmann::ordered_json::parse(text);
  for (const auto& [filter, answer] : json.items())
    rows.push_back({filter, answer.get<std::string>()});
  return rows;
}

}  // namespace

bool Store::has_evaluation(const Digest& key) const {
  return Statement(impl_->database, "SELECT 1 FROM evaluation WHERE evaluation_key = ?").bind(key).step();
}

void Store::write_evaluation(const EvalRow& row) {
  QLORA_CHECK(parse_json(row.protocol_json, "protocol").is_object(), usage,
              "a protocol must be a JSON object");
  impl_->flush();
  const Database& db = impl_->database;
  Transaction transaction(db);
  if (has_evaluation(row.key)) return;
  int64_t subject = subject_model_id(db, row.subject), task = task_id(db, row.task);
  Statement insert(
      db,
      "INSERT INTO evaluation(evaluation_key, subject_model_id, step, task_id, protocol, started_at, "
      "seconds) VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING evaluation_id");
  insert
      .bind(row.key, subject, row.step, task, row.protocol_json,
            row.started_at.empty() ? now_utc() : row.started_at, row.seconds)
      .step();
  int64_t id = insert.integer(0);
  insert.reset();

  Ids ids(db, task, row.task.name);
  Statement aggregate(
      db,
      "INSERT INTO eval_result(evaluation_id, metric_id, subject_id, n, value, standard_error) "
      "VALUES (?, ?, ?, ?, ?, ?)");
  for (const AggregateRow& a : row.aggregates)
    aggregate.run(id, impl_->metric_id(a.metric), ids.subject(a.subject), a.n, finite(a.value),
                  finite(a.standard_error));
  Statement prediction(
      db,
      "INSERT INTO prediction(evaluation_id, item_id, pred, correct, prompt_id, dropped_shots, "
      "scores, log_sum_exp, greedy, text, extracted) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
  for (const PredictionRow& p : row.predictions)
    prediction.run(id, ids.item(p.subject, p.ordinal, p.gold), p.pred, p.correct, ids.prompt(p.prompt),
                   p.dropped_shots, bytes_of(p.scores), p.log_sum_exp, greedy_of(p), p.text, extracted_of(p));
  Statement(db, "DELETE FROM partial_answer WHERE evaluation_key = ?").run(row.key);
  transaction.commit();
}

std::vector<AggregateRow> Store::aggregates(const Digest& evaluation) const {
  std::vector<AggregateRow> rows;
  Statement find(impl_->database,
                 "SELECT n.name, s.name, r.n, r.value, r.standard_error FROM evaluation e "
                 "JOIN eval_result r USING(evaluation_id) JOIN metric_name n USING(metric_id) "
                 "JOIN subject s ON s.subject_id = r.subject_id WHERE e.evaluation_key = ? ORDER BY 1, 2");
  find.bind(evaluation);
  while (find.step())
    rows.push_back({find.text(0), find.text(1), find.integer(2), find.optional_real(3).value_or(std::nan("")),
                    find.optional_real(4)});
  return rows;
}

std::vector<PredictionRow> Store::predictions(const Digest& evaluation) const {
  std::vector<PredictionRow> rows;
  Statement find(
      impl_->database,
      "SELECT s.name, i.ordinal, m.sha256, i.gold, p.pred, p.correct, p.scores, p.dropped_shots, "
      "p.log_sum_exp, p.greedy, p.text, p.extracted FROM evaluation e JOIN prediction p USING(evaluation_id) "
      "JOIN item i USING(item_id) JOIN subject s USING(subject_id) JOIN prompt m USING(prompt_id) "
      "WHERE e.evaluation_key = ? ORDER BY 1, 2");
  find.bind(evaluation);
  while (find.step()) {
    PredictionRow& p = rows.emplace_back();
    p.subject = find.text(0);
    p.ordinal = find.integer(1);
    p.prompt = find.digest(2);
    p.gold = find.integer(3);
    p.pred = find.integer(4);
    p.correct = find.integer(5) != 0;
    p.scores = floats_of(find.blob(6));
    p.dropped_shots = find.integer(7);
    p.log_sum_exp = find.optional_real(8);
    const Bytes greedy = find.blob(9);
    p.greedy.assign(greedy.begin(), greedy.end());
    if (!find.null(10)) p.text = find.text(10);
    p.extracted = extracted_from(find.text(11));
  }
  return rows;
}

void Store::write_partial_answers(const Digest& evaluation, std::span<const PartialAnswer> answers) {
  impl_->flush();
  Transaction transaction(impl_->database);
  if (has_evaluation(evaluation)) return;
  Statement insert(impl_->database,
                   "INSERT OR IGNORE INTO partial_answer(evaluation_key, request_sha256, answer) "
                   "VALUES (?, ?, ?)");
  for (const PartialAnswer& a : answers)
    insert.run(evaluation, a.request, Bytes(a.answer.begin(), a.answer.end()));
  transaction.commit();
}

std::vector<PartialAnswer> Store::partial_answers(const Digest& evaluation) const {
  std::vector<PartialAnswer> answers;
  Statement find(impl_->database,
                 "SELECT request_sha256, answer FROM partial_answer WHERE evaluation_key = ? ORDER BY 1");
  find.bind(evaluation);
  while (find.step()) {
    const Bytes bytes = find.blob(1);
    answers.push_back({find.digest(0), {bytes.begin(), bytes.end()}});
  }
  return answers;
}

}  // namespace qlora
