// qlora model import.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "core/base/json.h"
#include "core/io/gguf_import.h"
#include "experiments/cli/cli.h"
#include "experiments/terminal.h"

namespace qlora {
namespace {

int import_model(const Invocation& in, const std::string& file, const std::string& folder) {
  {
    Progress progress(stderr, in.json, 5);
    import_gguf(file, folder, [&](size_t done, size_t all) {
      progress.phase("importing, MB", static_cast<int64_t>(done >> 20), static_cast<int64_t>(all >> 20));
    });
  }
  if (in.json) {
    fmt::print("{}\n", Json{{"model", folder}}.dump());
  } else {
    fmt::print("{}\n", folder);
  }
  return 0;
}

}  // namespace

void add_model_commands(CLI::App& app, Invocation& in) {
  CLI::App* model = app.add_subcommand("model", "model folders");
  model->footer(group_footer("  qlora model show DIR\n  qlora model import model.gguf DIR"));
  model->require_subcommand(1);
  auto file = std::make_shared<std::string>(), folder = std::make_shared<std::string>();
  CLI::App* importer = model->add_subcommand("import", "make a Hugging Face folder of a GGUF file");
  importer->add_option("file", *file, "the GGUF file")->required();
  importer->add_option("out_dir", *folder, "the folder to write")->required();
  add_json_flag(*importer, in);
  importer->footer(
      "Examples:\n  qlora model import SmolLM2-135M-Instruct.Q4_1.gguf models/smollm2\n"
      "  qlora model import tiny.gguf models/tiny --json");
  importer->callback([=, &in] { in.work = [=, &in] { return import_model(in, *file, *folder); }; });

  add_model_show(*model, in);
  add_model_plan(*model, in);
}

}  // namespace qlora
