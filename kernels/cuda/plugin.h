#pragma once
// The boundary between the program and its plug-in libqlora_cuda.so: functions with C names, found at run
// time. Program and plug-in come from one build; the version guards against mixing two.

#include <cstddef>

namespace qlora {

class Backend;

namespace cuda {

// Raise it with every change of Backend or of the arguments of its functions.
inline constexpr int kPluginVersion = 3;

// What the plug-in finds on this machine.
struct DeviceReport {
  char text[1024] = {};  // the device, or why there is none, in one line
  bool usable = false;
};

// qlora_cuda_version, qlora_cuda_report, qlora_cuda_make
using VersionFunction = int (*)();
using ReportFunction = void (*)(DeviceReport*);
// A Backend that the caller deletes. Throws Error.
using MakeFunction = Backend* (*)();

}  // namespace cuda
}  // namespace qlora
