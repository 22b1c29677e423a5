#include "experiments/generation.h"

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <map>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "core/base/json.h"
#include "core/text/stop_strings.h"
#include "eval/generation/answer_files.h"
#include "eval/generation/answers.h"
#include "experiments/spec.h"

namespace qlora {
namespace {

// The conversation up to the question of `turn`.
std::vector<ChatMessage> conversation(const Question& question, const GenerationSettings& settings,
                                      const TurnRows& answers, int64_t turn) {
  std::vector<ChatMessage> messages;
  if (!settings.system.empty()) messages.push_back({"system", settings.system});
  messages.insert(messages.end(), question.before.begin(), question.before.end());
  for (size_t i = 0; i + 1 < static_cast<size_t>(turn); ++i) {
    messages.push_back({"assistant", answers[i].answer});
    messages.push_back({"user", question.further[i]});
  }
  return messages;
}

std::string prompt_text(const Question& question, const GenerationSettings& settings, const TurnRows& answers,
                        int64_t turn) {
  return chat_template_by_name(settings.chat_template)
      .render(conversation(question, settings, answers, turn), true);
}

Numerics numerics_of(const GenerationSettings& settings) {
  return settings.decode_numerics == "exact" ? Numerics::exact : Numerics::decode;
}

class Answering {
 public:
  Answering(const AnswerOptions& options, const QuestionFile& file, const GenerationSettings& settings,
            std::span<const AnsweringSubject> subjects)
      : options_(options),
        file_(file),
        settings_(settings),
        subjects_(subjects),
        template_(chat_template_by_name(settings.chat_template)),
        stop_ids_(ends_of_answers(template_, options.tokenizer, options.model)),
        stops_(settings.stops) {
    check_sampling(settings.sampling);
    for (const char* stop : template_.stops) stops_.emplace_back(stop);
  }

  std::vector<AnswerSet> run() {
    int64_t turns = 0;
    for (const Question& q : file_.questions) turns = std::max(turns, q.turns());
    for (const AnsweringSubject& s : subjects_) sets_.push_back(known(s));
    for (int64_t turn = 1; turn <= turns; ++turn) ask(turn);
    return std::move(sets_);
  }

 private:
  // An answer to come.
  struct Place {
    size_t set, question;
    Digest prompt{};
  };

  // What is there of a subject's answers.
  AnswerSet known(const AnsweringSubject& subject) {
    GenerationSetRow row = generation_set(subject.subject, subject.step, file_, settings_, options_.program);
    std::vector<GenerationRow> kept;
    if (options_.keeper != nullptr) kept = options_.keeper->begin(row);
    AnswerSet set;
    set.system = row.system;
    set.key = row.key;
    set.answers = answers_by_question(file_, std::move(kept), set.system);
    all_ += total_turns();
    for (const TurnRows& turns : set.answers) done_ += static_cast<int64_t>(turns.size());
    return set;
  }

  int64_t total_turns() const {
    int64_t n = 0;
    for (const Question& q : file_.questions) n += q.turns();
    return n;
  }

  // One turn of all questions by all subjects, question by question.
  void ask(int64_t turn) {
    std::vector<GenerateRequest> requests;
    std::vector<Place> places;
    for (size_t q = 0; q < file_.questions.size(); ++q) {
      if (file_.questions[q].turns() < turn) continue;
      for (size_t s = 0; s < sets_.size(); ++s)
        if (static_cast<int64_t>(sets_[s].answers[q].size()) == turn - 1)
          add_request(s, q, turn, requests, places);
    }
    if (requests.empty()) return;
    Generator g{.model = options_.model,
                .memory = options_.memory,
                .type = options_.type,
                .tokenizer = &options_.tokenizer,
                .numerics = numerics_of(settings_),
                .batch = options_.batch,
                .drafts = settings_.drafts};
    g.on_token = [this](size_t, int32_t) {
      if (options_.stop && options_.stop()) throw GenerationStopped{};
      return true;
    };
    g.on_answer = [&](size_t i, const std::vector<int32_t>& ids) { keep(places[i], turn, requests[i], ids); };
    generate_answers(g, requests,
                     [this](SubjectIndex s) { return subjects_[static_cast<size_t>(s)].adapter; });
  }

  void add_request(size_t s, size_t q, int64_t turn, std::vector<GenerateRequest>& requests,
                   std::vector<Place>& places) {
    const Question& question = file_.questions[q];
    const std::string prompt = prompt_text(question, settings_, sets_[s].answers[q], turn);
    GenerateRequest request;
    request.context = options_.tokenizer.encode(prompt, !template_.writes_special_tokens);
    request.max_new_tokens = settings_.max_new_tokens;
    request.stop_ids = stop_ids_;
    request.subject = static_cast<SubjectIndex>(s);
    request.stop_strings = stops_;
    request.sampling = settings_.sampling;
    // Every subject draws by the same numbers: what differs between answers is the model.
    const std::string stream = turn == 1 ? question.id : fmt::format("{}\n{}", question.id, turn);
    request.sampling.key = sampling_key(static_cast<uint64_t>(settings_.seed), stream);
    const Place place{s, q, sha256(prompt)};
    if (static_cast<int64_t>(request.context.size()) >= options_.model.config().max_positions) {
      keep(place, turn, request, {});
      return;
    }
    requests.push_back(std::move(request));
    places.push_back(place);
  }

  void keep(const Place& place, int64_t turn, const GenerateRequest& request,
            const std::vector<int32_t>& ids) {
    AnswerSet& set = sets_[place.set];
    GenerationRow row;
    row.question = file_.questions[place.question].id;
    row.turn = turn;
    row.prompt = place.prompt;
    row.text = options_.tokenizer.decode(ids, true);
    row.answer = stripped(cut_at_stop(row.text, stops_));
    const bool cut = cut_at_stop(row.text, stops_).size() < row.text.size();
    row.text = std::string(stripped(row.text));
    row.tokens = static_cast<int64_t>(ids.size());
    row.finish = ids.empty() ? "no_room" : cut || is_stop(request, ids.back()) ? "stop" : "length";
    row.created_at = now_utc();
    if (options_.keeper != nullptr) options_.keeper->keep(set.key, row);
    set.answers[place.question].push_back(std::move(row));
    ++set.fresh;
    ++done_;
    if (options_.progress) options_.progress(done_, all_);
  }

  static bool is_stop(const GenerateRequest& request, int32_t id) {
    return std::find(request.stop_ids.begin(), request.stop_ids.end(), id) != request.stop_ids.end();
  }

  const AnswerOptions& options_;
  const QuestionFile& file_;
  const GenerationSettings& settings_;
  std::span<const AnsweringSubject> subjects_;
  const ChatTemplate& template_;
  std::vector<int32_t> stop_ids_;
  std::vector<std::string> stops_;
  std::vector<AnswerSet> sets_;
  int64_t done_ = 0, all_ = 0;
};

// Seconds since 1970 of a stored time, "2024-05-01T12:00:00.000Z".
double seconds_of(const std::string& time) {
  std::tm parts{};
  int milliseconds = 0;
  const int read = std::sscanf(time.c_str(), "%d-%d-%dT%d:%d:%d.%dZ", &parts.tm_year, &parts.tm_mon,
                               &parts.tm_mday, &parts.tm_hour, &parts.tm_min, &parts.tm_sec, &milliseconds);
  QLORA_CHECK(read >= 6, data, "`{}` is no time of the store", time);
  parts.tm_year -= 1900;
  parts.tm_mon -= 1;
  return static_cast<double>(::timegm(&parts)) + milliseconds / 1000.0;
}

std::string file_name(const std::string& system) {
  std::string name = system;
  for (char& c : name)
    if (c == '/' || c == ' ' || c == '\\') c = '_';
  return name;
}

void write_changed(const Path& path, const std::string& text) {
  if (!std::filesystem::exists(path) || read_file(path) != text) write_file(path, text);
}

}  // namespace

std::vector<int32_t> ends_of_answers(const ChatTemplate& chat, const Tokenizer& tokenizer,
                                     const Model& model) {
  std::vector<int32_t> ids = stop_ids(chat, tokenizer);
  for (int32_t id : model.config().eos_ids)
    if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
  return ids;
}

std::string settings_text(const GenerationSettings& s) {
  Json json = {{"template", s.chat_template},           {"system", s.system},
               {"temperature", s.sampling.temperature}, {"repetition_penalty", s.sampling.repetition_penalty},
               {"max_new_tokens", s.max_new_tokens},    {"stop", s.stops},
               {"decode_numerics", s.decode_numerics}};
  if (s.sampling.temperature != 0) {  // greedy answers depend on none of these
    json["top_p"] = s.sampling.top_p;
    json["top_k"] = s.sampling.top_k;
    json["seed"] = s.seed;
  }
  return canonical(json);
}

std::string sampling_label(const Sampling& s) {
  std::string label = s.temperature == 0 ? "greedy" : fmt::format("topp{}-temp{}", s.top_p, s.temperature);
  if (s.temperature != 0 && s.top_k > 0) label += fmt::format("-topk{}", s.top_k);
  if (s.repetition_penalty != 1) label += fmt::format("-rep{}", s.repetition_penalty);
  return label;
}

std::vector<GenerationRow> StoreKeeper::begin(GenerationSetRow& set) {
  set.system = store_.declare_generations(set);
  return store_.generations(set.key);
}
void StoreKeeper::keep(const Digest& set, const GenerationRow& row) {
  store_.write_generation(set, row);
}

GenerationSetRow generation_set(const SubjectModel& subject, int64_t step, const QuestionFile& file,
                                const GenerationSettings& settings, const std::string& program) {
  GenerationSetRow row;
  row.settings_json = settings_text(settings);
  row.key = evaluation_key(subject.key, step, "generate", row.settings_json, hex(file.content));
  row.subject = subject;
  row.step = step;
  row.questions = {file.name, hex(file.content).substr(0, 12), "generate", file.content};
  row.system = subject.name;
  row.program = program;
  return row;
}

std::vector<TurnRows> answers_by_question(const QuestionFile& file, std::vector<GenerationRow> rows,
                                          const std::string& system) {
  std::map<std::string, size_t> places;
  for (size_t i = 0; i < file.questions.size(); ++i) places[file.questions[i].id] = i;
  std::vector<TurnRows> answers(file.questions.size());
  for (GenerationRow& row : rows) {
    const auto place = places.find(row.question);
    if (place == places.end()) continue;
    TurnRows& turns = answers[place->second];
    QLORA_CHECK(row.turn == static_cast<int64_t>(turns.size()) + 1, data,
                "the store has turn {} of question {} by {} without the turns before it", row.turn,
                row.question, system);
    turns.push_back(std::move(row));
  }
  return answers;
}

std::vector<AnswerSet> answer_questions(const AnswerOptions& options, const QuestionFile& file,
                                        const GenerationSettings& settings,
                                        std::span<const AnsweringSubject> subjects) {
  return Answering(options, file, settings, subjects).run();
}

std::vector<Path> write_answer_files(const Path& out, const QuestionFile& file,
                                     const GenerationSettings& settings, const AnswerSet& set) {
  std::string release, fastchat;
  bool one_turn = true;
  for (size_t i = 0; i < file.questions.size(); ++i) {
    const Question& question = file.questions[i];
    const TurnRows& rows = set.answers[i];
    std::vector<std::string> turns;
    for (const GenerationRow& row : rows) turns.push_back(row.answer);
    fastchat += fastchat_row(question, set.system, turns, seconds_of(rows.back().created_at));
    one_turn = one_turn && question.turns() == 1;
    if (one_turn)
      release +=
          release_row(question, prompt_text(question, settings, rows, 1), rows[0].text, rows[0].answer);
  }
  const std::string name = file_name(set.system);
  std::filesystem::create_directories(out / "model_answer");
  std::vector<Path> paths = {out / "model_answer" / (name + ".jsonl")};
  write_changed(paths[0], fastchat);
  if (one_turn) {
    std::string questions = file.name;
    std::replace(questions.begin(), questions.end(), '-', '_');
    paths.insert(paths.begin(), out / fmt::format("{}-{}-generations-{}.jsonl", name, questions,
                                                  sampling_label(settings.sampling)));
    write_changed(paths[0], release);
  }
  return paths;
}

}  // namespace qlora
