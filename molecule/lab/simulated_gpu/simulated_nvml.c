/* A simulation of libnvidia-ml.so.1 for the lab. It drives no GPU and must never be installed on a real host.
 *
 * Every call reads the state file again ($SIMULATED_GPU_STATE, else /run/simulated-gpu/state; README.md describes
 * it), so what another process writes there is seen by the very next call. Structures and codes are those of nvml.h.
 */
#define _GNU_SOURCE
#include "simulated_state.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

API const char simulated_nvml[] = "This libnvidia-ml.so.1 is a simulation: there is no GPU behind it.";

/* ---- nvml.h, as far as it is served ---- */

typedef const char *nvmlDevice_t;
typedef struct { unsigned long long total, free, used; } nvmlMemory_t;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } nvmlMemory_v2_t;
typedef struct { unsigned pid; unsigned long long usedGpuMemory; } nvmlProcessInfo_v1_t;
typedef struct {
    unsigned pid; unsigned long long usedGpuMemory; unsigned gpuInstanceId, computeInstanceId;
} nvmlProcessInfo_v2_t;
typedef struct {
    unsigned gpuUtilization, memoryUtilization; unsigned long long maxMemoryUsage, time, startTime;
    unsigned isRunning, reserved[5];
} nvmlAccountingStats_t;
typedef struct {
    unsigned pid, isRunning, gpuUtilization, memoryUtilization; unsigned long long maxMemoryUsage;
    unsigned sampleCount; unsigned long long sumGpuUtil, sumFbUtil, time, startTime;
} nvmlAccountingStats_v2_t;
typedef struct {
    char busIdLegacy[16]; unsigned domain, bus, device, pciDeviceId, pciSubSystemId; char busId[32];
} nvmlPciInfo_t;
typedef struct {
    nvmlDevice_t device; unsigned long long eventType, eventData; unsigned gpuInstanceId, computeInstanceId;
} nvmlEventData_t;
typedef struct { unsigned gpu, memory; } nvmlUtilization_t;

_Static_assert(sizeof(nvmlMemory_t) == 24, "memory");
_Static_assert(sizeof(nvmlMemory_v2_t) == 40, "memory v2");
_Static_assert(sizeof(nvmlProcessInfo_v1_t) == 16, "process v1");
_Static_assert(sizeof(nvmlProcessInfo_v2_t) == 24, "process v2 and v3");
_Static_assert(sizeof(nvmlAccountingStats_t) == 56, "accounting");
_Static_assert(sizeof(nvmlAccountingStats_v2_t) == 64, "accounting v2");
_Static_assert(sizeof(nvmlPciInfo_t) == 68, "pci");
_Static_assert(sizeof(nvmlEventData_t) == 32, "event");

#define MEMORY_V2 (sizeof(nvmlMemory_v2_t) | (2U << 24))
#define NOT_AVAILABLE 0xFFFFFFFFU
#define VALUE_NOT_AVAILABLE 0xFFFFFFFFFFFFFFFFULL
#define FOREIGN 5000000U /* beyond the kernel's largest pid: a process that this host does not see */
#define EVENT_XID 0x8ULL
#define BRAND_GEFORCE 5
#define ACCOUNTING_BUFFER 4000

static int driver_branch(const State *state)
{
    return atoi(state->driver.items[0].version);
}

/* ---- how each call begins ---- */

static atomic_int users; /* nvmlInit minus nvmlShutdown */
static const char handles[MAX_GPUS];

static int gpu_of(nvmlDevice_t device)
{
    return device >= handles && device < handles + MAX_GPUS ? (int)(device - handles) : NO_GPU;
}

static nvmlReturn_t begin(State *state, const char *function, int gpu, atomic_uint *calls)
{
    integer call = (integer)atomic_fetch_add(&calls[gpu + 1], 1) + 1;
    nvmlReturn_t code = read_state(state);
    return code != SUCCESS ? code : strike(state, function, gpu, call);
}

/* Each function counts its own calls, for each GPU, in this process. */
#define BEGIN(gpu) \
    static atomic_uint calls[MAX_GPUS + 1]; \
    State state; \
    nvmlReturn_t code = begin(&state, __func__, gpu, calls); \
    if (code != SUCCESS) \
        return code

#define SYSTEM_CALL(out) \
    if (atomic_load(&users) == 0) \
        return UNINITIALIZED; \
    BEGIN(NO_GPU); \
    if ((out) == NULL) \
        return INVALID_ARGUMENT

#define DEVICE_CALL(out) \
    if (atomic_load(&users) == 0) \
        return UNINITIALIZED; \
    const int gpu = gpu_of(device); \
    if (gpu == NO_GPU || (out) == NULL) \
        return INVALID_ARGUMENT; \
    BEGIN(gpu); \
    if ((size_t)gpu >= state.gpus.count) \
        return INVALID_ARGUMENT; \
    const Gpu *const card = &state.gpus.items[gpu]; \
    (void)card

static nvmlReturn_t give_text(const char *text, char *into, unsigned size)
{
    if (strlen(text) >= size)
        return INSUFFICIENT_SIZE;
    strcpy(into, text);
    return SUCCESS;
}

/* ---- library and system ---- */

#define INIT(function, parameters) \
    API nvmlReturn_t function parameters \
    { \
        BEGIN(NO_GPU); \
        atomic_fetch_add(&users, 1); \
        return SUCCESS; \
    }
INIT(nvmlInit, (void))
INIT(nvmlInit_v2, (void))
INIT(nvmlInitWithFlags, (unsigned flags __attribute__((unused))))

API nvmlReturn_t nvmlShutdown(void)
{
    int before = atomic_load(&users);
    while (before > 0 && !atomic_compare_exchange_weak(&users, &before, before - 1)) {}
    return before > 0 ? SUCCESS : UNINITIALIZED;
}

API const char *nvmlErrorString(nvmlReturn_t code)
{
    for (size_t i = 0; i < N_RETURNS; i++)
        if (RETURNS[i].code == (int)code)
            return RETURNS[i].text;
    return "Unknown Error";
}

API nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned length)
{
    SYSTEM_CALL(version);
    return give_text(state.driver.items[0].version, version, length);
}

API nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned length)
{
    SYSTEM_CALL(version);
    char text[128];
    snprintf(text, sizeof text, "%lld.%s", state.driver.items[0].cuda / 1000, state.driver.items[0].version);
    return give_text(text, version, length);
}

#define CUDA_VERSION(function) \
    API nvmlReturn_t function(int *version) \
    { \
        SYSTEM_CALL(version); \
        *version = (int)state.driver.items[0].cuda; \
        return SUCCESS; \
    }
CUDA_VERSION(nvmlSystemGetCudaDriverVersion)
CUDA_VERSION(nvmlSystemGetCudaDriverVersion_v2)

API nvmlReturn_t nvmlSystemGetProcessName(unsigned pid, char *name, unsigned length)
{
    SYSTEM_CALL(name);
    if (length == 0)
        return INVALID_ARGUMENT;
    for (size_t i = 0; i < state.processes.count; i++) {
        const Process *process = &state.processes.items[i];
        if (process->ghost && process->pid == pid) {
            snprintf(name, length, "%s", process->name);
            return SUCCESS;
        }
    }
    char path[32], text[4096];
    snprintf(path, sizeof path, "/proc/%u/cmdline", pid);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return NOT_FOUND;
    ssize_t n = read(file, text, sizeof text - 1);
    close(file);
    text[n > 0 ? n : 0] = '\0';
    snprintf(name, length, "%s", text); /* up to the NUL behind argv[0] */
    return SUCCESS;
}

/* ---- devices ---- */

#define GET_COUNT(function) \
    API nvmlReturn_t function(unsigned *count) \
    { \
        SYSTEM_CALL(count); \
        *count = (unsigned)state.gpus.count; \
        return SUCCESS; \
    }
GET_COUNT(nvmlDeviceGetCount)
GET_COUNT(nvmlDeviceGetCount_v2)

/* The GPU is not known before the state is read: a first look finds it, so that a fault of that GPU can strike. */
#define GET_HANDLE(function, parameter, matches) \
    API nvmlReturn_t function(parameter, nvmlDevice_t *device) \
    { \
        if (atomic_load(&users) == 0) \
            return UNINITIALIZED; \
        State first; \
        int gpu = NO_GPU; \
        nvmlReturn_t looked = read_state(&first); \
        for (int i = 0; looked == SUCCESS && i < (int)first.gpus.count; i++) \
            if (matches) \
                gpu = i; \
        BEGIN(gpu); \
        if (device == NULL || gpu == NO_GPU) \
            return device == NULL ? INVALID_ARGUMENT : NO_SUCH_DEVICE; \
        *device = handles + gpu; \
        return SUCCESS; \
    }

/* "domain:bus:device.function" with any width of the domain, or none. */
static bool same_pci(const char *asked, const char *own)
{
    unsigned a[4] = {0}, b[4] = {0};
    if (asked == NULL)
        return false;
    if (sscanf(asked, "%x:%x:%x.%x", &a[0], &a[1], &a[2], &a[3]) < 3) {
        a[0] = 0;
        if (sscanf(asked, "%x:%x.%x", &a[1], &a[2], &a[3]) < 2)
            return false;
    }
    sscanf(own, "%x:%x:%x.%x", &b[0], &b[1], &b[2], &b[3]);
    return memcmp(a, b, sizeof a) == 0;
}

#define NO_SUCH_DEVICE INVALID_ARGUMENT
GET_HANDLE(nvmlDeviceGetHandleByIndex, unsigned index, i == (int)index)
GET_HANDLE(nvmlDeviceGetHandleByIndex_v2, unsigned index, i == (int)index)
#undef NO_SUCH_DEVICE
#define NO_SUCH_DEVICE NOT_FOUND
GET_HANDLE(nvmlDeviceGetHandleByUUID, const char *uuid, uuid != NULL && strcmp(uuid, first.gpus.items[i].uuid) == 0)
GET_HANDLE(nvmlDeviceGetHandleByPciBusId, const char *id, same_pci(id, first.gpus.items[i].pci))
GET_HANDLE(nvmlDeviceGetHandleByPciBusId_v2, const char *id, same_pci(id, first.gpus.items[i].pci))

#define GET_PCI_INFO(function) \
    API nvmlReturn_t function(nvmlDevice_t device, nvmlPciInfo_t *pci) \
    { \
        DEVICE_CALL(pci); \
        memset(pci, 0, sizeof *pci); \
        sscanf(card->pci, "%x:%x:%x", &pci->domain, &pci->bus, &pci->device); \
        snprintf(pci->busId, sizeof pci->busId, "%08X:%02X:%02X.0", pci->domain, pci->bus, pci->device); \
        snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, "%04X:%02X:%02X.0", pci->domain & 0xFFFF, \
                 pci->bus & 0xFF, pci->device & 0xFF); \
        pci->pciDeviceId = (unsigned)card->pci_id; \
        return SUCCESS; \
    }
GET_PCI_INFO(nvmlDeviceGetPciInfo)
GET_PCI_INFO(nvmlDeviceGetPciInfo_v2)
GET_PCI_INFO(nvmlDeviceGetPciInfo_v3)

API nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned length)
{
    DEVICE_CALL(name);
    return give_text(card->name, name, length);
}

API nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned length)
{
    DEVICE_CALL(uuid);
    return give_text(card->uuid, uuid, length);
}

API nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor)
{
    DEVICE_CALL(major != NULL ? minor : NULL);
    return sscanf(card->capability, "%d.%d", major, minor) == 2 ? SUCCESS : UNKNOWN;
}

API nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned *current, unsigned *pending)
{
    DEVICE_CALL(current != NULL ? pending : NULL);
    if (card->mig < 0)
        return NOT_SUPPORTED;
    *current = *pending = card->mig != 0;
    return SUCCESS;
}

/* What is not simulated but asked for by every tool: an idle desktop card. */
#define CONSTANT(function, value) \
    API nvmlReturn_t function(nvmlDevice_t device, unsigned *out) \
    { \
        DEVICE_CALL(out); \
        *out = (unsigned)(value); \
        return SUCCESS; \
    }
CONSTANT(nvmlDeviceGetIndex, gpu)
CONSTANT(nvmlDeviceGetMinorNumber, gpu)
CONSTANT(nvmlDeviceGetComputeMode, card->compute_mode)
CONSTANT(nvmlDeviceGetBrand, BRAND_GEFORCE)
CONSTANT(nvmlDeviceGetFanSpeed, 30)
CONSTANT(nvmlDeviceGetPowerUsage, 32000)
CONSTANT(nvmlDeviceGetPowerManagementLimit, 165000)
CONSTANT(nvmlDeviceGetEnforcedPowerLimit, 165000)

API nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, unsigned sensor, unsigned *celsius)
{
    DEVICE_CALL(celsius);
    *celsius = 45;
    return sensor == 0 ? SUCCESS : INVALID_ARGUMENT;
}

API nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *utilization)
{
    DEVICE_CALL(utilization);
    if (card->mig > 0)
        return NOT_SUPPORTED;
    *utilization = (nvmlUtilization_t){0, 0};
    return SUCCESS;
}

#define CODEC_UTILIZATION(function) \
    API nvmlReturn_t function(nvmlDevice_t device, unsigned *utilization, unsigned *period_us) \
    { \
        DEVICE_CALL(utilization != NULL ? period_us : NULL); \
        *utilization = 0; \
        *period_us = 167000; \
        return SUCCESS; \
    }
CODEC_UTILIZATION(nvmlDeviceGetEncoderUtilization)
CODEC_UTILIZATION(nvmlDeviceGetDecoderUtilization)

/* ---- memory and processes ---- */

API nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    DEVICE_CALL(memory);
    integer used = used_mib(&state, gpu) + card->reserved;
    memory->total = (unsigned long long)card->total * MIB;
    memory->used = (unsigned long long)used * MIB;
    memory->free = memory->total - memory->used;
    return SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
    DEVICE_CALL(memory);
    if (driver_branch(&state) < 510)
        return FUNCTION_NOT_FOUND;
    if (memory->version != MEMORY_V2)
        return ARGUMENT_VERSION_MISMATCH;
    memory->total = (unsigned long long)card->total * MIB;
    memory->reserved = (unsigned long long)card->reserved * MIB;
    memory->used = (unsigned long long)used_mib(&state, gpu) * MIB;
    memory->free = memory->total - memory->reserved - memory->used;
    return SUCCESS;
}

static bool is_listed(const Process *process, const char *kind)
{
    return strcmp(process->kind, kind) == 0 || (strcmp(process->kind, "both") == 0 && strcmp(kind, "mps") != 0);
}

static void fill_v1(void *infos, unsigned i, unsigned pid, unsigned long long used)
{
    ((nvmlProcessInfo_v1_t *)infos)[i] = (nvmlProcessInfo_v1_t){pid, used};
}

static void fill_v2(void *infos, unsigned i, unsigned pid, unsigned long long used)
{
    ((nvmlProcessInfo_v2_t *)infos)[i] = (nvmlProcessInfo_v2_t){pid, used, NOT_AVAILABLE, NOT_AVAILABLE};
}

static nvmlReturn_t list_processes(const State *state, int gpu, const char *kind, unsigned *count, void *infos,
                                   void (*fill)(void *, unsigned, unsigned, unsigned long long))
{
    const char *lists = state->gpus.items[gpu].lists;
    const bool no_figures = strcmp(lists, "no-figures") == 0, foreign = strcmp(lists, "foreign-pids") == 0;
    unsigned found = 0, room = infos == NULL ? 0 : *count;
    for (size_t i = 0; i < state->processes.count; i++) {
        const Process *process = &state->processes.items[i];
        if (process->gpu != gpu || !is_listed(process, kind) || !holds_now(state, process)
            || strcmp(lists, "nothing") == 0)
            continue;
        if (found < room)
            fill(infos, found, (unsigned)process->pid + (foreign ? FOREIGN : 0),
                 no_figures ? VALUE_NOT_AVAILABLE : (unsigned long long)process->mib * MIB);
        found++;
    }
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

#define RUNNING_PROCESSES(function, kind, fill, branch) \
    API nvmlReturn_t function(nvmlDevice_t device, unsigned *count, void *infos) \
    { \
        DEVICE_CALL(count); \
        if (driver_branch(&state) < (branch)) \
            return FUNCTION_NOT_FOUND; \
        return list_processes(&state, gpu, kind, count, infos, fill); \
    }
RUNNING_PROCESSES(nvmlDeviceGetComputeRunningProcesses, "compute", fill_v1, 0)
RUNNING_PROCESSES(nvmlDeviceGetComputeRunningProcesses_v2, "compute", fill_v2, 450)
RUNNING_PROCESSES(nvmlDeviceGetComputeRunningProcesses_v3, "compute", fill_v2, 510)
RUNNING_PROCESSES(nvmlDeviceGetGraphicsRunningProcesses, "graphics", fill_v1, 0)
RUNNING_PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v2, "graphics", fill_v2, 450)
RUNNING_PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v3, "graphics", fill_v2, 510)
RUNNING_PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses, "mps", fill_v1, 0)
RUNNING_PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v2, "mps", fill_v2, 450)
RUNNING_PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v3, "mps", fill_v2, 510)

/* ---- persistence and accounting ---- */

/* A process that gave its GPU memory back counts as ended, too: it has closed the GPU. */
static bool is_running(const State *state, const Accounted *accounted)
{
    for (size_t i = 0; i < state->processes.count; i++) {
        const Process *process = &state->processes.items[i];
        if (process->gpu == accounted->gpu && process->pid == accounted->pid && process->born == accounted->born)
            return holds_now(state, process);
    }
    return false;
}

static bool is_accounting(const State *line, const State *all __attribute__((unused)), int gpu)
{
    return IS_ON(line, accounting, gpu) || (line->accounted.count == 1 && line->accounted.items[0].gpu == gpu);
}

static bool is_persistence(const State *line, const State *all __attribute__((unused)), int gpu)
{
    return IS_ON(line, persistence, gpu);
}

static bool is_ended_accounted(const State *line, const State *all, int gpu)
{
    return line->accounted.count == 1 && line->accounted.items[0].gpu == gpu
        && !is_running(all, &line->accounted.items[0]);
}

#define GET_SWITCH(function, list) \
    API nvmlReturn_t function(nvmlDevice_t device, unsigned *mode) \
    { \
        DEVICE_CALL(mode); \
        *mode = IS_ON(&state, list, gpu); \
        return SUCCESS; \
    }
GET_SWITCH(nvmlDeviceGetAccountingMode, accounting)
GET_SWITCH(nvmlDeviceGetPersistenceMode, persistence)

#define SET_SWITCH(function, list, is_one, supported) \
    static nvmlReturn_t add_##list(const State *all __attribute__((unused)), int gpu, FILE *out) \
    { \
        return fprintf(out, #list " gpu=%d\n", gpu) > 0 ? SUCCESS : UNKNOWN; \
    } \
    API nvmlReturn_t function(nvmlDevice_t device, unsigned mode) \
    { \
        DEVICE_CALL(device); \
        if (geteuid() != 0) \
            return NO_PERMISSION; \
        if (!(supported)) \
            return NOT_SUPPORTED; \
        if (mode > 1) \
            return INVALID_ARGUMENT; \
        if (IS_ON(&state, list, gpu) == (mode == 1)) \
            return SUCCESS; \
        return rewrite(gpu, is_one, mode == 1 ? add_##list : NULL); \
    }
SET_SWITCH(nvmlDeviceSetAccountingMode, accounting, is_accounting, card->mig <= 0)
SET_SWITCH(nvmlDeviceSetPersistenceMode, persistence, is_persistence, true)

API nvmlReturn_t nvmlDeviceClearAccountingPids(nvmlDevice_t device)
{
    DEVICE_CALL(device);
    if (geteuid() != 0)
        return NO_PERMISSION;
    if (!IS_ON(&state, accounting, gpu))
        return NOT_SUPPORTED;
    return rewrite(gpu, is_ended_accounted, NULL);
}

CONSTANT(nvmlDeviceGetAccountingBufferSize, ACCOUNTING_BUFFER)

API nvmlReturn_t nvmlDeviceGetAccountingPids(nvmlDevice_t device, unsigned *count, unsigned *pids)
{
    DEVICE_CALL(count);
    if (!IS_ON(&state, accounting, gpu))
        return NOT_SUPPORTED;
    unsigned found = 0, room = pids == NULL ? 0 : *count;
    for (size_t i = 0; i < state.accounted.count; i++)
        if (state.accounted.items[i].gpu == gpu && found++ < room)
            pids[found - 1] = (unsigned)state.accounted.items[i].pid;
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

/* As the driver does, look among the ended processes first: there a reused pid hides the one that runs. */
static const Accounted *find_accounted(const State *state, int gpu, unsigned pid, bool *running)
{
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = state->accounted.count; i-- > 0;) {
            const Accounted *accounted = &state->accounted.items[i];
            *running = pass == 1;
            if (accounted->gpu == gpu && accounted->pid == pid && is_running(state, accounted) == *running)
                return accounted;
        }
    return NULL;
}

#define FILL_ACCOUNTING(process) \
    if (!IS_ON(&state, accounting, gpu)) \
        return NOT_SUPPORTED; \
    bool running; \
    const Accounted *accounted = find_accounted(&state, gpu, process, &running); \
    if (accounted == NULL) \
        return NOT_FOUND; \
    memset(stats, 0, sizeof *stats); \
    stats->maxMemoryUsage = (unsigned long long)accounted->peak * MIB; \
    stats->startTime = (unsigned long long)(accounted->start * 1e6); \
    stats->time = running ? 0 : (unsigned long long)((accounted->end - accounted->start) * 1e3); \
    stats->isRunning = running

API nvmlReturn_t nvmlDeviceGetAccountingStats(nvmlDevice_t device, unsigned pid, nvmlAccountingStats_t *stats)
{
    DEVICE_CALL(stats);
    FILL_ACCOUNTING(pid);
    return SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetAccountingStats_v2(nvmlDevice_t device, nvmlAccountingStats_v2_t *stats)
{
    DEVICE_CALL(stats);
    const unsigned pid = stats->pid;
    FILL_ACCOUNTING(pid);
    stats->pid = pid;
    return SUCCESS;
}

/* ---- events: Xid errors that happen after registration, each once for a set ---- */

typedef struct { bool registered[MAX_GPUS]; real seen_to[MAX_GPUS]; } EventSet;

API nvmlReturn_t nvmlEventSetCreate(EventSet **set)
{
    SYSTEM_CALL(set);
    *set = calloc(1, sizeof **set);
    return *set == NULL ? MEMORY : SUCCESS;
}

API nvmlReturn_t nvmlEventSetFree(EventSet *set)
{
    SYSTEM_CALL(set);
    free(set);
    return SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t device, unsigned long long *types)
{
    DEVICE_CALL(types);
    *types = EVENT_XID;
    return SUCCESS;
}

API nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types, EventSet *set)
{
    DEVICE_CALL(set);
    if (types & ~EVENT_XID)
        return NOT_SUPPORTED;
    set->registered[gpu] = types != 0;
    set->seen_to[gpu] = state.now;
    return SUCCESS;
}

static nvmlReturn_t wait_event(EventSet *set, nvmlEventData_t *data, unsigned timeout_ms)
{
    const real deadline = now_s() + timeout_ms / 1e3;
    for (;;) {
        State state;
        nvmlReturn_t code = read_state(&state);
        if (code != SUCCESS)
            return code;
        const Xid *next = NULL;
        for (size_t i = 0; i < state.xids.count; i++) {
            const Xid *xid = &state.xids.items[i];
            if (xid->gpu < MAX_GPUS && set->registered[xid->gpu] && xid->at > set->seen_to[xid->gpu]
                && xid->at <= state.now && (next == NULL || xid->at < next->at))
                next = xid;
        }
        if (next != NULL) {
            set->seen_to[next->gpu] = next->at;
            *data = (nvmlEventData_t){handles + next->gpu, EVENT_XID, (unsigned long long)next->code,
                                      NOT_AVAILABLE, NOT_AVAILABLE};
            return SUCCESS;
        }
        if (state.now >= deadline)
            return TIMEOUT;
        sleep_ms(5);
    }
}

#define EVENT_WAIT(function) \
    API nvmlReturn_t function(EventSet *set, nvmlEventData_t *data, unsigned timeout_ms) \
    { \
        SYSTEM_CALL(set != NULL ? data : NULL); \
        return wait_event(set, data, timeout_ms); \
    }
EVENT_WAIT(nvmlEventSetWait)
EVENT_WAIT(nvmlEventSetWait_v2)
