#include "experiments/answer_plan.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "eval/generation/answer_files.h"
#include "eval/judge/answer_ids.h"
#include "experiments/build_info.h"
#include "experiments/eval_rows.h"
#include "experiments/scheduler.h"
#include "results/store.h"

namespace qlora {
namespace {

std::vector<QuestionSet> read_sets(const Sweep& sweep) {
  std::vector<QuestionSet> sets;
  for (const GenerateSpec& spec : sweep.generates) {
    QuestionSet& set = sets.emplace_back();
    set.spec = &spec;
    set.file = questions_of(spec);
    for (const Question& question : set.file.questions) set.turns += question.turns();
  }
  return sets;
}

SubjectModel subject_of(const PlannedRun& run, bool base) {
  const Path model = run.config.text("model_name_or_path");
  const std::string quant = quant_label(run.config);
  if (!base) return {run.key, true, run.name, model.string(), quant};
  const Path last = model.filename().empty() ? model.parent_path().filename() : model.filename();
  return base_subject(run.base, last.string(), model, quant);
}

void add_answers(Planner& planner, const QuestionSet& set, std::vector<PlannedRun>& runs,
                 std::vector<AnswerNeed>& answers) {
  std::set<Digest> bases;
  for (size_t i = 0; i < runs.size(); ++i) {
    PlannedRun& run = runs[i];
    GenerationSettings settings = set.spec->settings;
    settings.decode_numerics = run.config.text("decode_numerics");
    settings.drafts = drafts(run.config);
    planner.check_answers(run, set.file, settings);
    auto add = [&](bool of_base) {
      AnswerNeed& need = answers.emplace_back();
      need.run = i;
      need.of_base = of_base;
      need.set = &set;
      need.settings = settings;
      need.row = generation_set(subject_of(run, of_base), of_base ? 0 : run.config.integer("max_steps"),
                                set.file, settings, program_line());
    };
    if (set.spec->base && bases.insert(run.base).second) add(true);
    add(false);
  }
}

// Answers of one key would be made, and their votes counted, twice. A set's name stands for its questions in
// files and votes.
void check_sets(const AnswerPlan& plan) {
  std::map<std::string, const QuestionSet*> named;
  for (const QuestionSet& set : plan.sets) {
    const QuestionSet& first = *named.emplace(set.file.name, &set).first->second;
    QLORA_CHECK(first.file.content == set.file.content, usage,
                "{}: {} and {} are two sets of questions with one name; rename one of the files",
                set.spec->where.text(), first.file.path, set.file.path);
  }
  std::map<Digest, const QuestionSet*> asked;
  for (const AnswerNeed& need : plan.answers) {
    const QuestionSet& first = *asked.emplace(need.row.key, need.set).first->second;
    QLORA_CHECK(
        &first == need.set, usage,
        "{}: {} is asked a second time in the same way, after {}; keep one of the two (with the larger "
        "`limit`)",
        need.set->spec->where.text(), need.set->file.path, first.spec->where.text());
  }
}

// `base` is the folder that all runs stand on.
JudgeSetup resolved(const JudgeSpec& spec, const std::vector<PlannedRun>& runs) {
  JudgeSetup setup = spec.setup;
  if (setup.judge != kBaseJudge) return setup;
  const std::string& model = runs.at(0).config.text("model_name_or_path");
  for (const PlannedRun& run : runs)
    QLORA_CHECK(run.config.text("model_name_or_path") == model, usage,
                "{}: `judge: base` needs one base, and the runs stand on {} and {}", spec.where.text(), model,
                run.config.text("model_name_or_path"));
  setup.judge = "model:" + model;
  return setup;
}

std::vector<JudgeQuestion> questions_for_judge(const QuestionFile& file) {
  std::vector<JudgeQuestion> questions;
  for (const Question& q : file.questions) questions.push_back({q.id, q.before.back().content, q.category});
  return questions;
}

// What decides a judge's words besides the answers: names the journal's folder.
std::string identity(const JudgeSetup& setup, const JudgeStudy& study, const QuestionSet& set) {
  Json prompts = Json::array();
  for (const JudgePrompt& p : study.prompts)
    prompts.push_back({p.id, p.system, p.prompt_template, p.instruction, p.category});
  const Json json = {{"judge", study.judge},
                     {"model", is_local(setup) ? model_content_hash(folder_of(setup)) : setup.judge},
                     {"prompts", prompts},
                     {"points", setup.points},
                     {"parser", setup.run.parser},
                     {"temperature", study.temperature},
                     {"max_tokens", study.max_tokens},
                     {"template", setup.chat_template},
                     {"questions", hex(set.file.content)},
                     {"settings", settings_text(set.spec->settings)}};
  return hex(sha256(canonical(json))).substr(0, 8);
}

void check_judge_options(const JudgeSpec& spec) {
  try {
    check_run_options(spec.setup.run, spec.setup.points);
  } catch (const Error& e) {
    fail(e.kind(), "{}: judge {}: {}", spec.where.text(), name_of(spec.setup), e.what());
  }
}

// Names that no file of votes can hold are found before anything is trained.
void check_names(const std::vector<std::string>& systems, const JudgeStudy& study) {
  for (const std::string& first : systems)
    for (const std::string& second : systems)
      if (first != second) judgment_file_name({first, second, study.judge}, !study.points);
}

// The judge's longest prompt: the question, and two answers of full length.
void check_room(Planner& planner, const JudgeSpec& spec, const JudgeStudy& study, StudyNeed& need) {
  std::string longest;
  for (const JudgeQuestion& q : questions_for_judge(need.set->file)) {
    const JudgePrompt& prompt = prompt_for(study.prompts, q.category);
    std::string text = prompt.system + fill_prompt(prompt, q.text, "", "");
    if (text.size() > longest.size()) longest = std::move(text);
  }
  int64_t turns = 1;
  for (const Question& q : need.set->file.questions) turns = std::max(turns, q.turns());
  try {
    const JudgeNeed judge =
        planner.judge_need(need.setup, longest, 2 * turns * need.set->spec->settings.max_new_tokens);
    need.memory = judge.memory;
    need.room = judge.room;
    need.lasting = judge.lasting;
    need.over = judge.over;
  } catch (const Error& e) {
    fail(e.kind(), "{}: judge {}: {}", spec.where.text(), study.judge, e.what());
  }
}

void add_studies(Planner& planner, const Sweep& sweep, const std::vector<PlannedRun>& runs,
                 const JudgeSpec& spec, AnswerPlan& plan) {
  const JudgeSetup setup = resolved(spec, runs);
  check_judge_options(spec);
  const JudgeStudy study = study_of(setup);
  std::set<std::string> wanted(spec.questions.begin(), spec.questions.end());
  size_t found = 0;
  for (const QuestionSet& set : plan.sets) {
    if (!wanted.empty() && !wanted.contains(set.file.name)) continue;
    ++found;
    std::vector<std::string> systems;
    for (const AnswerNeed& need : plan.answers)
      if (need.set == &set) systems.push_back(system_alias(need.row.system));
    QLORA_CHECK(systems.size() >= 2, usage,
                "{}: a judge compares at least two systems; {} is answered by one alone (`base: true` of its "
                "`generate` adds the base)",
                spec.where.text(), set.file.name);
    check_names(systems, study);
    StudyNeed& need = plan.studies.emplace_back();
    need.setup = setup;
    need.set = &set;
    need.folder =
        sweep_folder(sweep) / "judgments" /
        fmt::format("{}-{}-{}", judge_label(study.judge), set.file.name, identity(setup, study, set));
    if (is_local(setup)) check_room(planner, spec, study, need);
  }
  QLORA_CHECK(found > 0, usage, "{}: none of the sweep's `generate` asks {}", spec.where.text(),
              wanted.empty() ? "anything" : fmt::format("{}", fmt::join(wanted, ", ")));
}

AnswerBook::Answer joined(const std::string& system, const Question& question, const TurnRows& rows) {
  std::vector<std::string> turns;
  for (const GenerationRow& row : rows) turns.push_back(row.answer);
  AnswerBook::Answer answer;
  answer.id = answer_id(system, question.id, turns);
  answer.text = fmt::format("{}", fmt::join(turns, "\n"));
  return answer;
}

}  // namespace

int64_t AnswerPlan::to_answer() const {
  int64_t n = 0;
  for (const AnswerNeed& need : answers)
    if (!need.never) n += need.set->turns - need.known;
  return n;
}
int64_t AnswerPlan::to_judge() const {
  int64_t n = 0;
  for (const StudyNeed& study : studies) n += study.missing;
  return n;
}

AnswerPlan plan_answers(Planner& planner, const Sweep& sweep, std::vector<PlannedRun>& runs) {
  AnswerPlan plan;
  plan.sets = read_sets(sweep);
  for (const QuestionSet& set : plan.sets) add_answers(planner, set, runs, plan.answers);
  check_sets(plan);
  for (const JudgeSpec& spec : sweep.judges) add_studies(planner, sweep, runs, spec, plan);
  return plan;
}

void mark_answers(AnswerPlan& plan, const Store* store) {
  for (AnswerNeed& need : plan.answers) {
    need.known = 0;
    if (store == nullptr) continue;
    for (const TurnRows& rows : stored_answers(*store, need).answers)
      need.known += static_cast<int64_t>(rows.size());
  }
  for (StudyNeed& study : plan.studies) {
    const auto systems = std::count_if(plan.answers.begin(), plan.answers.end(), [&](const AnswerNeed& need) {
      return need.set == study.set && (need.done() || !need.never);
    });
    study.all = systems * (systems - 1) * static_cast<int64_t>(study.set->file.questions.size());
    study.missing = study.all;
    if (store == nullptr) continue;
    const std::vector<JudgeAsk> asks = asks_of(plan, study, *store);
    study.missing -=
        static_cast<int64_t>(asks.size() - missing_asks(journal_votes(study.folder), asks).size());
  }
}

KnownSystems judged_systems(const AnswerPlan& plan, const std::string& judge) {
  KnownSystems known;
  for (const StudyNeed& study : plan.studies)
    for (const AnswerNeed& need : plan.answers)
      if (name_of(study.setup) == judge && need.set == study.set)
        known.try_emplace(system_alias(need.row.system), need.set->spec->where.text());
  return known;
}

void check_judges(const AnswerPlan& plan, size_t budget) {
  for (const StudyNeed& study : plan.studies)
    QLORA_CHECK(study.missing == 0 || study.memory <= budget, memory,
                "judge {} needs {}; {} may be used (--memory)", name_of(study.setup),
                format_bytes(study.memory), format_bytes(budget));
}

std::vector<std::string> describe_answers(const AnswerPlan& plan) {
  std::vector<std::string> lines;
  for (const QuestionSet& set : plan.sets) {
    int64_t systems = 0, known = 0;
    for (const AnswerNeed& need : plan.answers)
      if (need.set == &set && (need.done() || !need.never)) {
        ++systems;
        known += need.known;
      }
    lines.push_back(fmt::format("answers of {} systems to {} questions of {}: {} to do of {}", systems,
                                set.file.questions.size(), set.file.name, systems * set.turns - known,
                                systems * set.turns));
  }
  for (const StudyNeed& study : plan.studies) {
    lines.push_back(fmt::format("judgments of {} by {}: {} to do of {}", study.set->file.name,
                                name_of(study.setup), study.missing, study.all));
    if (study.memory > 0) lines.back() += ", " + format_bytes(study.memory);
    if (study.over > 0)
      lines.push_back(fmt::format(
          "  two answers of full length need {} tokens more than the judge's context has: prompts "
          "that do not fit get no verdict; fewer max_new_tokens, or a judge with more room",
          study.over));
  }
  return lines;
}

AnswerJob answer_job(Store& store, const AnswerNeed& need) {
  AnswerJob job;
  job.key = need.row.key;
  job.settings = need.settings;
  job.questions = need.set->spec->questions;
  job.content = need.set->file.content;
  job.limit = need.set->spec->limit;
  job.step = need.row.step;
  job.system = store.declare_generations(need.row);
  job.known = store.generations(need.row.key);
  return job;
}

AnswerSet stored_answers(const Store& store, const AnswerNeed& need) {
  AnswerSet set;
  set.system = store.system_of(need.row.key);
  set.key = need.row.key;
  set.answers = answers_by_question(need.set->file, store.generations(need.row.key), set.system);
  return set;
}

std::vector<JudgeAsk> asks_of(const AnswerPlan& plan, const StudyNeed& need, const Store& store) {
  JudgeStudy study = study_of(need.setup);
  study.questions = questions_for_judge(need.set->file);
  AnswerBook book;
  for (const AnswerNeed& answers : plan.answers) {
    if (answers.set != need.set || !answers.done()) continue;
    const AnswerSet set = stored_answers(store, answers);
    const std::string system = system_alias(set.system);
    study.systems.push_back(system);
    for (size_t q = 0; q < set.answers.size(); ++q)
      book.add(system, need.set->file.questions[q].id,
               joined(set.system, need.set->file.questions[q], set.answers[q]));
  }
  if (study.systems.size() < 2) return {};
  return plan_study(study, book);
}

}  // namespace qlora
