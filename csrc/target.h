// Instruction-set regions inside a variant file: LOWBIT_TARGET_BEGIN_AVX2 ... LOWBIT_TARGET_END, after all includes.
//
// A region changes the target of the functions written inside it and of nothing else. Per-file compiler flags would
// also change shared templates and inline functions, which the linker may then keep for everyone (house rule;
// test_house.py looks for weak symbols in variant objects). So: no standard-library templates inside a region, and
// helpers there are `static`.
#pragma once

#if defined(__x86_64__)
#define LOWBIT_X86 1
#endif

#define LOWBIT_PRAGMA(x) _Pragma(#x)

#define LOWBIT_FEATURES_AVX2 "avx2,fma,bmi,bmi2,f16c,lzcnt,movbe,popcnt"
#define LOWBIT_FEATURES_AVX512_VNNI LOWBIT_FEATURES_AVX2 ",avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vnni"
#define LOWBIT_FEATURES_AVX512 LOWBIT_FEATURES_AVX512_VNNI ",avx512vbmi,avx512vbmi2,avx512bitalg,avx512vpopcntdq"
#define LOWBIT_FEATURES_AMX LOWBIT_FEATURES_AVX512 ",amx-tile,amx-int8"

#if defined(__clang__)
#define LOWBIT_TARGET_BEGIN(features) \
  LOWBIT_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define LOWBIT_TARGET_END LOWBIT_PRAGMA(clang attribute pop)
#else
#define LOWBIT_TARGET_BEGIN(features) LOWBIT_PRAGMA(GCC push_options) LOWBIT_PRAGMA(GCC target(features))
#define LOWBIT_TARGET_END LOWBIT_PRAGMA(GCC pop_options)
#endif

#define LOWBIT_TARGET_BEGIN_AVX2 LOWBIT_TARGET_BEGIN(LOWBIT_FEATURES_AVX2)
#define LOWBIT_TARGET_BEGIN_AVX512_VNNI LOWBIT_TARGET_BEGIN(LOWBIT_FEATURES_AVX512_VNNI)
#define LOWBIT_TARGET_BEGIN_AVX512 LOWBIT_TARGET_BEGIN(LOWBIT_FEATURES_AVX512)
#define LOWBIT_TARGET_BEGIN_AMX LOWBIT_TARGET_BEGIN(LOWBIT_FEATURES_AMX)
