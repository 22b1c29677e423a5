#pragma once
// What this machine is and what this program can do on it.

#include <cstdint>
#include <string>

namespace qlora {

struct MachineInfo {
  std::string hostname, cpu, kernel;
  int cores = 0, threads = 0;  // of the machine; that are used by default
  size_t memory = 0;           // available now
};
const MachineInfo& machine_info();  // looked up once
std::string machine_json();         // the same and the backends, a JSON object
std::string machine_text();         // for `qlora doctor`
std::string versions_text();        // of the program and its libraries

}  // namespace qlora
