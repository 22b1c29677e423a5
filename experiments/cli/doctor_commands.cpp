// qlora doctor, qlora version.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "experiments/build_info.h"
#include "experiments/cli/cli.h"
#include "experiments/doctor.h"
#include "experiments/options.h"

namespace qlora {

void add_doctor_commands(CLI::App& app, Invocation& in) {
  auto list_options = std::make_shared<bool>(false);
  CLI::App* doctor = app.add_subcommand("doctor", "what this machine is and what the program can do on it");
  doctor->add_flag("--options", *list_options, "list every option of a run instead");
  add_json_flag(*doctor, in);
  doctor->footer("Examples:\n  qlora doctor\n  qlora doctor --options");
  doctor->callback([=, &in] {
    in.work = [=, &in] {
      if (*list_options) {
        fmt::print("{}", describe_options());
      } else if (in.json) {
        fmt::print("{}\n", machine_json());
      } else {
        fmt::print("{}{}", machine_text(), versions_text());
      }
      return 0;
    };
  });

  CLI::App* version = app.add_subcommand("version", "the program's version and build");
  add_json_flag(*version, in);
  version->callback([&in] {
    in.work = [&in] {
      const BuildInfo& b = build_info();
      if (in.json) {
        Json json = {
            {"version", b.version}, {"commit", b.commit}, {"compiler", b.compiler}, {"build", b.build_type}};
        fmt::print("{}\n", json.dump(1));
      } else {
        fmt::print("{}\n", program_line());
      }
      return 0;
    };
  });
}

}  // namespace qlora
