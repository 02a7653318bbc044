/* A simulation of libcuda.so.1 for the lab: memory alone. It drives no GPU and must never be installed on a real host.
 *
 * What a process allocates here, the simulated libnvidia-ml.so.1 shows in its name: both keep it in one state file. A
 * pointer leads nowhere. Of cuda.h there is what a program needs that allocates, touches and frees.
 */
#define _GNU_SOURCE
#include "simulated_state.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

API const char simulated_cuda[] = "This libcuda.so.1 is a simulation: there is no GPU behind it.";

/* ---- cuda.h, as far as it is served ---- */

#define CUDA_ERRORS(of) \
    of(0, CUDA_SUCCESS, "no error") \
    of(1, CUDA_ERROR_INVALID_VALUE, "invalid argument") \
    of(2, CUDA_ERROR_OUT_OF_MEMORY, "out of memory") \
    of(3, CUDA_ERROR_NOT_INITIALIZED, "initialization error") \
    of(100, CUDA_ERROR_NO_DEVICE, "no CUDA-capable device is detected") \
    of(101, CUDA_ERROR_INVALID_DEVICE, "invalid device ordinal") \
    of(201, CUDA_ERROR_INVALID_CONTEXT, "invalid device context") \
    of(999, CUDA_ERROR_UNKNOWN, "unknown error")
#define CODE(code, name, text) name = code,
typedef enum { CUDA_ERRORS(CODE) } CUresult;
typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef struct Context *CUcontext;
typedef struct { unsigned char bytes[16]; } CUuuid;

#define ROW(code, name, text) {code, #name, text},
static const struct { int code; const char *name, *text; } ERRORS[] = {CUDA_ERRORS(ROW)};

#define CONTEXT_MIB 305 /* what the lab's processes hold besides what they allocate, see molecule/lab/README.md */
#define GRANULARITY (2 * MIB)
#define MOST_ALLOCATIONS 4096

/* ---- what this process holds ---- */

static struct Context { int retained; integer mib; } contexts[MAX_GPUS];
static struct Allocation { CUdeviceptr at; unsigned long long size; int gpu; } allocations[MOST_ALLOCATIONS];
static CUdeviceptr next_address = 0x7f0000000000;
static pthread_mutex_t own = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local CUcontext current;
static atomic_bool initialised;

static integer wanted_mib; /* for the functions below, while `own` is held */

static bool is_own(const Process *process, int gpu)
{
    return process->gpu == gpu && process->pid == getpid() && !process->ghost;
}

static bool is_own_account(const Accounted *accounted, int gpu)
{
    return accounted->gpu == gpu && accounted->pid == getpid() && accounted->born == born_of(getpid());
}

static bool is_replaced(const State *line, const State *all __attribute__((unused)), int gpu)
{
    return (line->processes.count == 1 && is_own(&line->processes.items[0], gpu))
        || (line->accounted.count == 1 && is_own_account(&line->accounted.items[0], gpu))
        || (line->ledgers.count == 1 && line->ledgers.items[0].gpu == gpu);
}

/* As simulated_gpu.py's reserve() and release(). */
static nvmlReturn_t write_own(const State *all, int gpu, FILE *out)
{
    const Gpu *card = &all->gpus.items[gpu];
    const integer born = born_of(getpid());
    integer before = 0;
    bool opened = false;
    for (size_t i = 0; i < all->processes.count; i++)
        if (is_own(&all->processes.items[i], gpu)) {
            before = all->processes.items[i].mib;
            opened = true;
        }
    const integer used = used_mib(all, gpu) - before + wanted_mib;
    if (wanted_mib > before && used > card->total - card->reserved)
        return MEMORY;
    if (wanted_mib > 0)
        fprintf(out, "process gpu=%d pid=%d mib=%lld born=%lld kind=compute\n", gpu, getpid(), wanted_mib, born);
    Accounted account = {.born = born, .start = all->now};
    bool accounted = !opened && IS_ON(all, accounting, gpu); /* it follows what opens the GPU while it is on */
    for (size_t i = 0; i < all->accounted.count; i++)
        if (is_own_account(&all->accounted.items[i], gpu)) {
            account = all->accounted.items[i];
            accounted = true;
        }
    if (accounted)
        fprintf(out, "accounted gpu=%d pid=%d born=%lld peak=%lld start=%.6f end=%.6f\n", gpu, getpid(), born,
                wanted_mib > account.peak ? wanted_mib : account.peak, account.start, all->now);
    Ledger ledger = {.settled = all->now};
    for (size_t i = 0; i < all->ledgers.count; i++)
        if (all->ledgers.items[i].gpu == gpu)
            ledger = all->ledgers.items[i];
    fprintf(out, "ledger gpu=%d peak=%lld settled=%.6f\n", gpu, used > ledger.peak ? used : ledger.peak, ledger.settled);
    return SUCCESS;
}

/* Makes what this process holds of a GPU `mib` in all. */
static CUresult hold(int gpu, integer mib)
{
    wanted_mib = mib;
    nvmlReturn_t code = rewrite(gpu, is_replaced, write_own);
    if (code != SUCCESS)
        return code == MEMORY ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_ERROR_UNKNOWN;
    contexts[gpu].mib = mib;
    return CUDA_SUCCESS;
}

static int gpu_of(CUcontext context)
{
    return (int)(context - contexts);
}

/* ---- how each call begins ---- */

static CUresult begin(State *state, const char *function, int gpu, atomic_uint *calls)
{
    integer call = (integer)atomic_fetch_add(&calls[gpu + 1], 1) + 1;
    nvmlReturn_t code = read_state(state);
    if (code != SUCCESS)
        return code == DRIVER_NOT_LOADED || code == NO_PERMISSION ? CUDA_ERROR_NO_DEVICE : CUDA_ERROR_UNKNOWN;
    return strike(state, function, gpu, call) == SUCCESS ? CUDA_SUCCESS : CUDA_ERROR_UNKNOWN;
}

#define BEGIN(gpu) \
    static atomic_uint calls[MAX_GPUS + 1]; \
    State state; \
    CUresult begun = begin(&state, __func__, gpu, calls); \
    if (begun != CUDA_SUCCESS) \
        return begun

#define INITIALISED(out) \
    if (!atomic_load(&initialised)) \
        return CUDA_ERROR_NOT_INITIALIZED; \
    if ((out) == NULL) \
        return CUDA_ERROR_INVALID_VALUE

#define DEVICE_CALL(out) \
    INITIALISED(out); \
    if (device < 0 || device >= MAX_GPUS) \
        return CUDA_ERROR_INVALID_DEVICE; \
    BEGIN(device); \
    if ((size_t)device >= state.gpus.count) \
        return CUDA_ERROR_INVALID_DEVICE; \
    const Gpu *const card = &state.gpus.items[device]; \
    (void)card

#define CONTEXT_CALL(out) \
    INITIALISED(out); \
    if (current == NULL || current->retained == 0) \
        return CUDA_ERROR_INVALID_CONTEXT; \
    BEGIN(gpu_of(current))

/* ---- library and devices ---- */

API CUresult cuInit(unsigned flags)
{
    BEGIN(NO_GPU);
    if (flags != 0)
        return CUDA_ERROR_INVALID_VALUE;
    if (state.gpus.count == 0)
        return CUDA_ERROR_NO_DEVICE;
    atomic_store(&initialised, true);
    return CUDA_SUCCESS;
}

static CUresult give_error(CUresult error, const char **text, bool name)
{
    if (text == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *text = NULL;
    for (size_t i = 0; i < COUNT(ERRORS); i++)
        if (ERRORS[i].code == (int)error)
            *text = name ? ERRORS[i].name : ERRORS[i].text;
    return *text == NULL ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

API CUresult cuGetErrorName(CUresult error, const char **text)
{
    return give_error(error, text, true);
}

API CUresult cuGetErrorString(CUresult error, const char **text)
{
    return give_error(error, text, false);
}

API CUresult cuDriverGetVersion(int *version)
{
    if (version == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    BEGIN(NO_GPU);
    *version = (int)state.driver.items[0].cuda;
    return CUDA_SUCCESS;
}

API CUresult cuDeviceGetCount(int *count)
{
    INITIALISED(count);
    BEGIN(NO_GPU);
    *count = (int)state.gpus.count;
    return CUDA_SUCCESS;
}

API CUresult cuDeviceGet(CUdevice *out, int device)
{
    DEVICE_CALL(out);
    *out = device;
    return CUDA_SUCCESS;
}

API CUresult cuDeviceGetName(char *name, int length, CUdevice device)
{
    DEVICE_CALL(length > 0 ? name : NULL);
    snprintf(name, (size_t)length, "%s", card->name);
    return CUDA_SUCCESS;
}

API CUresult cuDeviceGetPCIBusId(char *id, int length, CUdevice device)
{
    DEVICE_CALL(length > 0 ? id : NULL);
    unsigned domain = 0, bus = 0, slot = 0;
    sscanf(card->pci, "%x:%x:%x", &domain, &bus, &slot);
    snprintf(id, (size_t)length, "%04x:%02x:%02x.0", domain, bus, slot);
    return CUDA_SUCCESS;
}

/* "GPU-" and the digits of 16 bytes, as far as the record's text has any. */
#define GET_UUID(function) \
    API CUresult function(CUuuid *uuid, CUdevice device) \
    { \
        DEVICE_CALL(uuid); \
        memset(uuid, 0, sizeof *uuid); \
        size_t digits = 0; \
        for (const char *c = card->uuid + 4; strlen(card->uuid) > 4 && *c != '\0' && digits < 32; c++) { \
            unsigned digit; \
            char one[] = {*c, '\0'}; \
            if (sscanf(one, "%x", &digit) == 1) { \
                uuid->bytes[digits / 2] |= (unsigned char)(digits % 2 == 0 ? digit << 4 : digit); \
                digits++; \
            } \
        } \
        return CUDA_SUCCESS; \
    }
GET_UUID(cuDeviceGetUuid)
GET_UUID(cuDeviceGetUuid_v2)

API CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device)
{
    DEVICE_CALL(bytes);
    *bytes = (size_t)(card->total - card->reserved) * MIB;
    return CUDA_SUCCESS;
}

/* ---- the primary context ---- */

API CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
    DEVICE_CALL(context);
    pthread_mutex_lock(&own);
    CUresult code = contexts[device].retained > 0 ? CUDA_SUCCESS : hold(device, CONTEXT_MIB);
    if (code == CUDA_SUCCESS) {
        contexts[device].retained++;
        *context = &contexts[device];
    }
    pthread_mutex_unlock(&own);
    return code;
}

#define RELEASE(function) \
    API CUresult function(CUdevice device) \
    { \
        DEVICE_CALL(""); \
        pthread_mutex_lock(&own); \
        CUresult code = contexts[device].retained == 0 ? CUDA_ERROR_INVALID_CONTEXT : CUDA_SUCCESS; \
        if (code == CUDA_SUCCESS && --contexts[device].retained == 0) { \
            for (size_t i = 0; i < MOST_ALLOCATIONS; i++) \
                if (allocations[i].gpu == device) \
                    allocations[i].size = 0; \
            code = hold(device, 0); \
        } \
        pthread_mutex_unlock(&own); \
        return code; \
    }
RELEASE(cuDevicePrimaryCtxRelease)
RELEASE(cuDevicePrimaryCtxRelease_v2)

API CUresult cuCtxSetCurrent(CUcontext context)
{
    INITIALISED("");
    if (context != NULL && (context < contexts || context >= contexts + MAX_GPUS))
        return CUDA_ERROR_INVALID_CONTEXT;
    current = context;
    return CUDA_SUCCESS;
}

API CUresult cuCtxSynchronize(void)
{
    CONTEXT_CALL("");
    return CUDA_SUCCESS;
}

/* ---- memory ---- */

API CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total)
{
    CONTEXT_CALL(free_bytes != NULL ? total : NULL);
    const int gpu = gpu_of(current);
    const integer all = state.gpus.items[gpu].total - state.gpus.items[gpu].reserved;
    *total = (size_t)all * MIB;
    *free_bytes = (size_t)(all - used_mib(&state, gpu)) * MIB;
    return CUDA_SUCCESS;
}

static struct Allocation *allocation_of(CUdeviceptr at, unsigned long long size)
{
    for (size_t i = 0; i < MOST_ALLOCATIONS; i++) {
        struct Allocation *each = &allocations[i];
        if (each->size > 0 && at >= each->at && at + size <= each->at + each->size)
            return each;
    }
    return NULL;
}

API CUresult cuMemAlloc_v2(CUdeviceptr *at, size_t bytes)
{
    CONTEXT_CALL(bytes > 0 ? at : NULL);
    const int gpu = gpu_of(current);
    const unsigned long long size = (bytes + GRANULARITY - 1) / GRANULARITY * GRANULARITY;
    CUresult code = CUDA_ERROR_OUT_OF_MEMORY;
    size_t i = 0;
    pthread_mutex_lock(&own);
    while (i < MOST_ALLOCATIONS && allocations[i].size > 0)
        i++;
    if (i < MOST_ALLOCATIONS)
        code = hold(gpu, contexts[gpu].mib + (integer)(size / MIB));
    if (code == CUDA_SUCCESS) {
        allocations[i] = (struct Allocation){next_address, size, gpu};
        *at = next_address;
        next_address += size;
    }
    pthread_mutex_unlock(&own);
    return code;
}

API CUresult cuMemFree_v2(CUdeviceptr at)
{
    CONTEXT_CALL("");
    pthread_mutex_lock(&own);
    struct Allocation *known = allocation_of(at, 1);
    CUresult code = known == NULL || known->at != at ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
    if (code == CUDA_SUCCESS) {
        code = hold(known->gpu, contexts[known->gpu].mib - (integer)(known->size / MIB));
        known->size = 0;
    }
    pthread_mutex_unlock(&own);
    return code;
}

API CUresult cuMemsetD8_v2(CUdeviceptr at, unsigned char value __attribute__((unused)), size_t bytes)
{
    CONTEXT_CALL("");
    pthread_mutex_lock(&own);
    CUresult code = allocation_of(at, bytes) == NULL ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
    pthread_mutex_unlock(&own);
    return code;
}
