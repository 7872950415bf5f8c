// The operators of a plan. Adding one: a compile function in a file of this folder, a row here, a row in
// docs/format.md.
#pragma once

#include <string_view>
#include <utility>

#include "model/op_reader.h"

namespace lowbit {

std::unique_ptr<Op> compile_quantize(OpReader& reader);
std::unique_ptr<Op> compile_dequantize(OpReader& reader);
std::unique_ptr<Op> compile_quantize_dynamic(OpReader& reader);
std::unique_ptr<Op> compile_binarize(OpReader& reader);
std::unique_ptr<Op> compile_xnor_conv2d(OpReader& reader);
std::unique_ptr<Op> compile_xnor_gemm(OpReader& reader);
std::unique_ptr<Op> compile_quantize_levels(OpReader& reader);
std::unique_ptr<Op> compile_dequantize_levels(OpReader& reader);
std::unique_ptr<Op> compile_conv2d_bitserial(OpReader& reader);
std::unique_ptr<Op> compile_gemm_bitserial(OpReader& reader);
std::unique_ptr<Op> compile_conv2d(OpReader& reader);
std::unique_ptr<Op> compile_gemm(OpReader& reader);
std::unique_ptr<Op> compile_conv2d_f32(OpReader& reader);
std::unique_ptr<Op> compile_gemm_f32(OpReader& reader);
std::unique_ptr<Op> compile_conv2d_codebook(OpReader& reader);
std::unique_ptr<Op> compile_gemm_codebook(OpReader& reader);
std::unique_ptr<Op> compile_add(OpReader& reader);
std::unique_ptr<Op> compile_mul(OpReader& reader);
std::unique_ptr<Op> compile_lookup(OpReader& reader);
std::unique_ptr<Op> compile_max_pool(OpReader& reader);
std::unique_ptr<Op> compile_average_pool(OpReader& reader);
std::unique_ptr<Op> compile_concat(OpReader& reader);
std::unique_ptr<Op> compile_resize(OpReader& reader);
std::unique_ptr<Op> compile_unary(OpReader& reader);
std::unique_ptr<Op> compile_prelu(OpReader& reader);
std::unique_ptr<Op> compile_binary(OpReader& reader);
std::unique_ptr<Op> compile_softmax(OpReader& reader);
std::unique_ptr<Op> compile_transpose(OpReader& reader);
std::unique_ptr<Op> compile_reshape(OpReader& reader);
std::unique_ptr<Op> compile_slice(OpReader& reader);
std::unique_ptr<Op> compile_pad(OpReader& reader);

inline constexpr std::pair<std::string_view, CompileOp> kOps[] = {
    {"quantize", compile_quantize},
    {"dequantize", compile_dequantize},
    {"quantize_dynamic", compile_quantize_dynamic},
    {"binarize", compile_binarize},
    {"xnor_conv2d", compile_xnor_conv2d},
    {"xnor_gemm", compile_xnor_gemm},
    {"quantize_levels", compile_quantize_levels},
    {"dequantize_levels", compile_dequantize_levels},
    {"conv2d_bitserial", compile_conv2d_bitserial},
    {"gemm_bitserial", compile_gemm_bitserial},
    {"conv2d", compile_conv2d},
    {"gemm", compile_gemm},
    {"conv2d_f32", compile_conv2d_f32},
    {"gemm_f32", compile_gemm_f32},
    {"conv2d_codebook", compile_conv2d_codebook},
    {"gemm_codebook", compile_gemm_codebook},
    {"add", compile_add},
    {"mul", compile_mul},
    {"lookup", compile_lookup},
    {"max_pool", compile_max_pool},
    {"average_pool", compile_average_pool},
    {"concat", compile_concat},
    {"resize", compile_resize},
    {"unary", compile_unary},
    {"prelu", compile_prelu},
    {"binary", compile_binary},
    {"softmax", compile_softmax},
    {"transpose", compile_transpose},
    {"reshape", compile_reshape},
    {"slice", compile_slice},
    {"pad", compile_pad},
};

}  // namespace lowbit
