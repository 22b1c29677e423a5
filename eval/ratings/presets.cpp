#include "eval/ratings/presets.h"

#include <algorithm>
#include <array>

#include "core/base/check.h"
#include "core/base/names.h"

namespace qlora {

namespace {

// The eight systems of Table 1 of "QLoRA: Efficient Finetuning of Quantized LLMs" (Dettmers et al. 2023);
// ChatGPT is gpt-3.5, Guanaco 33B is the files' 30b.
constexpr std::string_view kQloraSystems[] = {"gpt-4",   "guanaco-65b", "guanaco-33b", "vicuna-13b",
                                              "gpt-3.5", "guanaco-13b", "bard",        "guanaco-7b"};

// {first, second, first wins, second wins, ties, invalid}, one for each ordered pair.
// clang-format off
constexpr PairCount kQloraVicunaGpt4[] = {
    {0, 1, 72, 2, 6, 0}, {0, 2, 77, 0, 3, 0}, {0, 3, 79, 0, 1, 0}, {0, 4, 69, 3, 8, 0},
    {0, 5, 79, 0, 1, 0}, {0, 6, 76, 0, 4, 0}, {0, 7, 79, 0, 1, 0},
    {1, 0, 13, 57, 10, 0}, {1, 2, 54, 18, 8, 0}, {1, 3, 51, 18, 10, 1}, {1, 4, 51, 17, 12, 0},
    {1, 5, 57, 12, 11, 0}, {1, 6, 63, 11, 6, 0}, {1, 7, 61, 9, 10, 0},
    {2, 0, 6, 61, 13, 0}, {2, 1, 43, 24, 13, 0}, {2, 3, 46, 18, 16, 0}, {2, 4, 47, 22, 11, 0},
    {2, 5, 56, 10, 14, 0}, {2, 6, 61, 13, 6, 0}, {2, 7, 61, 9, 10, 0},
    {3, 0, 6, 63, 11, 0}, {3, 1, 42, 24, 14, 0}, {3, 2, 39, 25, 16, 0}, {3, 4, 49, 21, 10, 0},
    {3, 5, 53, 13, 14, 0}, {3, 6, 61, 15, 4, 0}, {3, 7, 57, 13, 10, 0},
    {4, 0, 4, 64, 12, 0}, {4, 1, 40, 19, 21, 0}, {4, 2, 40, 23, 17, 0}, {4, 3, 40, 20, 20, 0},
    {4, 5, 51, 20, 9, 0}, {4, 6, 51, 14, 15, 0}, {4, 7, 53, 18, 9, 0},
    {5, 0, 3, 65, 11, 1}, {5, 1, 31, 33, 16, 0}, {5, 2, 40, 27, 13, 0}, {5, 3, 48, 24, 8, 0},
    {5, 4, 43, 27, 10, 0}, {5, 6, 49, 26, 5, 0}, {5, 7, 50, 17, 12, 1},
    {6, 0, 6, 67, 7, 0}, {6, 1, 30, 36, 14, 0}, {6, 2, 36, 29, 15, 0}, {6, 3, 37, 31, 12, 0},
    {6, 4, 35, 26, 19, 0}, {6, 5, 51, 18, 10, 1}, {6, 7, 50, 20, 10, 0},
    {7, 0, 5, 69, 6, 0}, {7, 1, 25, 42, 13, 0}, {7, 2, 29, 31, 12, 8}, {7, 3, 31, 33, 15, 1},
    {7, 4, 37, 34, 9, 0}, {7, 5, 41, 24, 15, 0}, {7, 6, 48, 20, 12, 0},
};

// Majorities of three votes; three different votes are a tie.
constexpr PairCount kQloraVicunaHuman[] = {
    {0, 1, 27, 6, 3, 0}, {0, 2, 32, 7, 7, 0}, {0, 3, 35, 5, 3, 0}, {0, 4, 22, 5, 8, 0},
    {0, 5, 26, 7, 3, 0}, {0, 6, 30, 1, 2, 0}, {0, 7, 26, 5, 4, 0},
    {1, 0, 15, 25, 4, 0}, {1, 2, 18, 18, 8, 0}, {1, 3, 14, 12, 9, 0}, {1, 4, 28, 13, 5, 0},
    {1, 5, 17, 14, 6, 0}, {1, 6, 28, 10, 1, 0}, {1, 7, 20, 18, 6, 0},
    {2, 0, 8, 24, 2, 0}, {2, 1, 15, 15, 6, 0}, {2, 3, 14, 13, 9, 0}, {2, 4, 26, 12, 4, 0},
    {2, 5, 19, 13, 5, 0}, {2, 6, 27, 10, 5, 0}, {2, 7, 15, 19, 3, 0},
    {3, 0, 6, 23, 8, 0}, {3, 1, 16, 22, 7, 0}, {3, 2, 14, 21, 9, 0}, {3, 4, 15, 11, 12, 0},
    {3, 5, 18, 15, 8, 0}, {3, 6, 20, 13, 5, 0}, {3, 7, 20, 15, 6, 0},
    {4, 0, 4, 38, 3, 0}, {4, 1, 7, 23, 4, 0}, {4, 2, 12, 19, 7, 0}, {4, 3, 10, 24, 8, 0},
    {4, 5, 13, 21, 7, 0}, {4, 6, 21, 14, 5, 0}, {4, 7, 12, 18, 3, 0},
    {5, 0, 10, 28, 6, 0}, {5, 1, 13, 20, 10, 0}, {5, 2, 15, 23, 5, 0}, {5, 3, 21, 13, 5, 0},
    {5, 4, 20, 13, 6, 0}, {5, 6, 17, 16, 3, 0}, {5, 7, 22, 21, 1, 0},
    {6, 0, 7, 36, 4, 0}, {6, 1, 11, 21, 9, 0}, {6, 2, 14, 18, 6, 0}, {6, 3, 8, 22, 12, 0},
    {6, 4, 21, 13, 6, 0}, {6, 5, 17, 22, 5, 0}, {6, 7, 4, 29, 7, 0},
    {7, 0, 11, 29, 5, 0}, {7, 1, 15, 11, 10, 0}, {7, 2, 19, 19, 5, 0}, {7, 3, 18, 14, 7, 0},
    {7, 4, 27, 15, 5, 0}, {7, 5, 20, 11, 5, 0}, {7, 6, 18, 14, 8, 0},
};
// clang-format on

// The seven of the OpenAssistant column, Bard is not among them.
constexpr std::string_view kOaSystems[] = {"gpt-4",      "gpt-3.5",     "guanaco-65b", "guanaco-33b",
                                           "vicuna-13b", "guanaco-13b", "guanaco-7b"};

constexpr std::array<Preset, 5> kPresets = {{
    {.name = "qlora-vicuna-gpt4",
     .about = "GPT-4's verdicts on the 80 Vicuna prompts, both orders of showing; Table 1 of the QLoRA paper",
     .source = "counted from github.com/artidoro/qlora, eval/ratings-gpt4/vicuna/pairwise (56 files of 80 "
               "judgments, MIT)",
     .systems = kQloraSystems,
     .counts = kQloraVicunaGpt4},
    {.name = "qlora-vicuna-human",
     .about = "majorities of three human votes on the 80 Vicuna prompts; Table 7 of the QLoRA paper",
     .source =
         "counted from github.com/bcdnlp/PRD, data/vicuna80/ratings-human (56 files of the eight systems, "
         "MIT)",
     .systems = kQloraSystems,
     .counts = kQloraVicunaHuman,
     .votes = "majority"},
    {.name = "qlora-oa-gpt4",
     .about = "GPT-4's verdicts on 953 OpenAssistant prompts, both orders; Table 7 of the QLoRA paper",
     .source = "github.com/artidoro/qlora, eval/ratings-gpt4/oa (42 files of 953 judgments, MIT)",
     .systems = kOaSystems,
     .k = 32},
    {.name = "fastchat",
     .about =
         "what FastChat's elo analysis does: Bradley-Terry with ties as half a win, single matches drawn "
         "again 100 times (too narrow where several matches share a prompt)",
     .source = "github.com/lm-sys/FastChat, fastchat/serve/monitor/rating_systems.py",
     .model = "bt",
     .cluster = "battle",
     .draws = 100},
    {.name = "arena",
     .about = "what Chatbot Arena's arena-rank does: Bradley-Terry with ties as half a win, sandwich over "
              "single matches (too narrow where several matches share a prompt)",
     .source = "github.com/lmarena/arena-rank",
     .model = "bt",
     .interval = "sandwich",
     .cluster = "battle"},
}};

void add(std::vector<Match>& matches, const PairCount& pair, int count, Outcome outcome) {
  matches.insert(matches.end(), static_cast<size_t>(count), Match{pair.first, pair.second, outcome, -1});
}

}  // namespace

std::span<const Preset> presets() {
  return kPresets;
}

const Preset& preset(const std::string& name) {
  std::vector<std::string> known;
  for (const Preset& p : kPresets) {
    if (p.name == name) return p;
    known.emplace_back(p.name);
  }
  fail(ErrorKind::usage, "{}", unknown_name("preset", name, known));
}

Matches matches_of(const Preset& preset) {
  QLORA_CHECK(!preset.counts.empty(), usage,
              "preset {} holds settings and no tournament: give judgment files too{}", preset.name,
              preset.systems.empty() ? "" : fmt::format(" ({})", preset.source));
  Matches all;
  all.systems.assign(preset.systems.begin(), preset.systems.end());
  all.judges = {std::string(preset.name)};
  all.invalid.resize(all.systems.size());
  for (const PairCount& pair : preset.counts) {
    add(all.matches, pair, pair.first_wins, Outcome::first_wins);
    add(all.matches, pair, pair.second_wins, Outcome::second_wins);
    add(all.matches, pair, pair.ties, Outcome::tie);
    all.invalid_rows += pair.invalid;
    for (int system : {pair.first, pair.second}) all.invalid[static_cast<size_t>(system)] += pair.invalid;
  }
  all.rows = static_cast<int64_t>(all.matches.size()) + all.invalid_rows;
  return all;
}

std::string note_of(const Preset& preset) {
  return fmt::format("{}; {}.", preset.about, preset.source);
}

EloReport compute_preset(const Preset& preset, EloOptions options, bool override_k) {
  QLORA_CHECK(
      options.bootstrap == 0, usage,
      "preset {} is made of counts without prompts, so there is no interval; leave --bootstrap away, or give "
      "the judgment files",
      preset.name);
  if (!override_k) options.k = preset.k;
  Matches all = matches_of(preset);
  EloReport report = compute_elo(all.systems, all.matches, options);
  for (Rating& rating : report.ratings) {
    auto place = std::find(all.systems.begin(), all.systems.end(), rating.system);
    rating.invalid = all.invalid[static_cast<size_t>(place - all.systems.begin())];
  }
  report.note =
      note_of(preset) +
      " Counts have no prompts, so there is no confidence interval: order_sd is the noise of random "
      "orders alone.";
  return report;
}

}  // namespace qlora
