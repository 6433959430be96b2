#define NAME row_kernels_base
#include "row_kernels.inc"
