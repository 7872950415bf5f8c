// The entry that libFuzzer, the replay program and the mutation driver share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

// Opens the bytes as a model, as they are and with their checksums made right, and runs what opens. Aborts where
// anything but FormatError is thrown, or a run fails.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

// How many models have opened, for drivers that want to know whether they reach the engine.
int64_t models_opened();
