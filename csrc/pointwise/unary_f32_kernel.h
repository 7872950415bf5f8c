// The constants of exp and tanh, one set for every level. The coefficients were fitted for this project: minimax for
// the relative error of exp(r) = 1 + r + r^2 (E2 + E3 r + ...) on |r| <= ln(2) / 2 (5 % of an ulp), and for tanh(x) = x
// + x^3 (T0 + T1 x^2 + ...) on |x| <= 0.625 (7 %).
#pragma once

namespace lowbit::pointwise {

constexpr float kExpLowest = -104.0f, kExpHighest = 89.0f;  // beyond them: 0 and infinity
constexpr float kRoundMagic = 12582912.0f;                  // 1.5 * 2^23: adding it rounds to a whole number
constexpr float kLog2E = 0x1.715476p+0f;
constexpr float kLn2High = 0x1.62e4p-1f;  // 15 bits: its product with any exponent is exact
constexpr float kLn2Low = 1.4286068203094172e-6f;
constexpr float kE2 = 0.4999999403953552f, kE3 = 0.1666651964187622f, kE4 = 0.04166839271783829f,
                kE5 = 0.008368780836462975f, kE6 = 0.0013814466074109077f;
constexpr float kTanhSmall = 0.625f;
constexpr float kT0 = -0.3333328366279602f, kT1 = 0.13331490755081177f, kT2 = -0.05374349653720856f,
                kT3 = 0.020650584250688553f, kT4 = -0.005717042367905378f;
constexpr float kSixth = 1.0f / 6.0f;

}  // namespace lowbit::pointwise
