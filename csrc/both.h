// Functions that a GPU executes too, where the compiler is nvcc.
#pragma once

#ifdef __CUDACC__
#define PYMGAN_BOTH __host__ __device__
// Before a template of both that calls what it is given, which may be of one alone.
#define PYMGAN_CALLS_EITHER _Pragma("nv_exec_check_disable")
#else
#define PYMGAN_BOTH
#define PYMGAN_CALLS_EITHER
#endif
