// Everything public, in one include.
#pragma once

#include "lowbit/calibrate.h"
#include "lowbit/codebook.h"
#include "lowbit/depthwise_i8.h"
#include "lowbit/dtype.h"
#include "lowbit/error.h"
#include "lowbit/gemm_f32.h"
#include "lowbit/gemm_i8.h"
#include "lowbit/huffman.h"
#include "lowbit/isa.h"
#include "lowbit/model.h"
#include "lowbit/pointwise.h"
#include "lowbit/probe.h"
#include "lowbit/requantize.h"
#include "lowbit/sparse.h"
#include "lowbit/threads.h"
#include "lowbit/xnor.h"
