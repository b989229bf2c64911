// The kernels of one instruction set.

#include "kernels.h"
#include "simd.h"

HGAT_OPEN

void additive_forward(const Additive&);
void additive_backward(const Additive&);
void gatv2_forward(const Gatv2&);
void gatv2_backward(const Gatv2&);
void dot_forward(const Dot&);
void dot_backward(const Dot&);
void weighted_sum(const WeightedSum&);
void weighted_sum_backward(const WeightedSumBackward&);
void softmax_backward(const SoftmaxBackward&);
void edge_sum(const EdgeSum&);
void gated_forward(const Gated&);
void gated_backward(const Gated&);

#define HGAT_TEXT_OF(name) #name
#define HGAT_TEXT(name) HGAT_TEXT_OF(name)

const Kernels* kernels() {
  static const Kernels table{HGAT_TEXT(HGAT_ISA), additive_forward, additive_backward, gatv2_forward,
                             gatv2_backward,      dot_forward,      dot_backward,      weighted_sum,
                             weighted_sum_backward, softmax_backward, edge_sum,         gated_forward,
                             gated_backward};
  return &table;
}

HGAT_CLOSE
