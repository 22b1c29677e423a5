#include "experiments/doctor.h"

#include <openssl/crypto.h>
#include <sqlite3.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <zlib.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/base/parallel.h"
#include "core/models/model.h"
#include "datasets/dataset.h"
#include "experiments/build_info.h"
#include "experiments/config.h"
#include "experiments/plan.h"
#include "kernels/devices.h"

namespace qlora {
namespace {

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name")) return line.substr(std::min(line.size(), line.find(':') + 2));
  return "unknown";
}

MachineInfo look() {
  MachineInfo info;
  struct utsname name {};
  ::uname(&name);
  info.hostname = name.nodename;
  info.kernel = fmt::format("{} {} {}", name.sysname, name.release, name.machine);
  info.cpu = cpu_name();
  info.cores = static_cast<int>(std::thread::hardware_concurrency());
  info.threads = default_thread_count();
  info.memory = available_memory();
  return info;
}

Json gpus_json() {
  const GpuReport& report = gpu_report();
  Json gpus = Json::array();
  for (const GpuInfo& gpu : report.gpus)
    gpus.push_back({{"name", gpu.name},
                    {"compute_capability", fmt::format("{}.{}", gpu.major, gpu.minor)},
                    {"free", gpu.free},
                    {"total", gpu.total},
                    {"trouble", gpu.trouble}});
  return {{"gpus", gpus},
          {"driver_found", report.driver},
          {"driver_needed", report.needed},
          {"libraries", report.libraries},
          {"trouble", report.trouble}};
}

std::string gpus_text() {
  const GpuReport& report = gpu_report();
  if (report.gpus.empty()) return fmt::format("gpus      none: {}\n", report.trouble);
  std::string out =
      fmt::format("gpus      a driver {} is needed, one {} was found\n", report.needed, report.driver);
  for (size_t i = 0; i < report.gpus.size(); ++i)
    out += fmt::format("  {:<10} {:<4} {}\n", i, report.gpus[i].trouble.empty() ? "yes" : "no",
                       describe(report.gpus[i]));
  if (report.gpus.size() > 1) out += "  the first is used; CUDA_VISIBLE_DEVICES says which that is\n";
  return out;
}

}  // namespace

const MachineInfo& machine_info() {
  static const MachineInfo info = look();
  return info;
}

std::string machine_json() {
  const MachineInfo& info = machine_info();
  Json backends = Json::array();
  for (const BackendInfo& b : list_backends())
    backends.push_back({{"name", b.name}, {"available", b.available}, {"reason", b.reason}});
  return Json{{"hostname", info.hostname}, {"cpu", info.cpu},
              {"kernel", info.kernel},     {"cores", info.cores},
              {"threads", info.threads},   {"memory", info.memory},
              {"backends", backends},      {"cuda", gpus_json()},
              {"program", program_line()}, {"compute_dtype", best_compute_dtype()}}
      .dump(1);
}

std::string machine_text() {
  const MachineInfo& info = machine_info();
  std::string out =
      fmt::format("cpu       {}\ncores     {} ({} used by default)\nmemory    {} available\nkernel    {}\n",
                  info.cpu, info.cores, info.threads, format_bytes(info.memory), info.kernel);
  out +=
      fmt::format("compute   {} unless told otherwise: {}\n", best_compute_dtype(), why_best_compute_dtype());
  out += "backends\n";
  for (const BackendInfo& b : list_backends())
    out += fmt::format("  {:<10} {:<4} {}\n", b.name, b.available ? "yes" : "no", b.reason);
  out += gpus_text();
  out += fmt::format("models    {}\n", fmt::join(model_types(), ", "));
  out += fmt::format("datasets  {}\n", fmt::join(dataset_formats(), ", "));
  return out;
}

std::string versions_text() {
  return fmt::format("{}\nSQLite {}, fmt {}.{}.{}, zlib {}, {}\n", program_line(), sqlite3_libversion(),
                     FMT_VERSION / 10000, FMT_VERSION / 100 % 100, FMT_VERSION % 100, zlibVersion(),
                     OpenSSL_version(OPENSSL_VERSION));
}

}  // namespace qlora
