/* A simulation of libnvidia-ml.so.1 for the lab. It drives no GPU and must never be installed on a real host.
 *
 * Every call reads the state file again ($SIMULATED_GPU_STATE, else /run/simulated-gpu/state; README.md describes
 * it), so what another process writes there is seen by the very next call. Structures and codes are those of nvml.h.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define API __attribute__((visibility("default")))
#define DEFAULT_STATE "/run/simulated-gpu/state"
#define MIB (1024ULL * 1024ULL)
#define MAX_GPUS 16
#define NO_GPU (-1)
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

API const char simulated_nvml[] = "This libnvidia-ml.so.1 is a simulation: there is no GPU behind it.";

/* ---- nvml.h, as far as it is served ---- */

typedef enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, TIMEOUT = 10, FUNCTION_NOT_FOUND = 13, MEMORY = 20,
    ARGUMENT_VERSION_MISMATCH = 25, UNKNOWN = 999
} nvmlReturn_t;

static const struct { int code; const char *name, *text; } RETURNS[] = {
    {0, "Success", "Success"},
    {1, "Uninitialized", "Uninitialized"},
    {2, "InvalidArgument", "Invalid Argument"},
    {3, "NotSupported", "Not Supported"},
    {4, "NoPermission", "Insufficient Permissions"},
    {5, "AlreadyInitialized", "Already Initialized"},
    {6, "NotFound", "Not Found"},
    {7, "InsufficientSize", "Insufficient Size"},
    {8, "InsufficientPower", "Insufficient External Power"},
    {9, "DriverNotLoaded", "Driver Not Loaded"},
    {10, "Timeout", "Timeout"},
    {11, "IrqIssue", "Interrupt Request Issue"},
    {12, "LibraryNotFound", "NVML Shared Library Not Found"},
    {13, "FunctionNotFound", "Function Not Found"},
    {14, "CorruptedInforom", "Corrupted infoROM"},
    {15, "GpuIsLost", "GPU is lost"},
    {16, "ResetRequired", "GPU requires restart"},
    {17, "OperatingSystem", "The operating system has blocked the request."},
    {18, "LibRmVersionMismatch", "RM has detected an NVML/RM version mismatch."},
    {19, "InUse", "In use by another client"},
    {20, "Memory", "Insufficient Memory"},
    {21, "NoData", "No data"},
    {22, "VgpuEccNotSupported", "VGPU ECC not supported"},
    {23, "InsufficientResources", "Insufficient Resources"},
    {24, "FreqNotSupported", "Frequency not supported"},
    {25, "ArgumentVersionMismatch", "Argument version mismatch"},
    {26, "Deprecated", "Deprecated"},
    {27, "NotReady", "System not ready"},
    {28, "GpuNotFound", "GPU not found"},
    {29, "InvalidState", "Invalid state"},
    {999, "Unknown", "Unknown Error"},
};

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
#define EVENT_XID 0x8ULL
#define BRAND_GEFORCE 5
#define ACCOUNTING_BUFFER 4000

/* ---- the state file: one record a line, `record key=value key="some text"` ---- */

typedef long long integer;
typedef double real; /* seconds since the epoch, or a duration in seconds */

typedef struct { char version[80]; integer cuda; } Driver;
typedef struct {
    integer total, reserved, mig, pci_id;
    char name[96], uuid[80], pci[32], capability[8];
} Gpu;
typedef struct { integer gpu, pid, mib, born, ghost; real at, until; char kind[16], name[256]; } Process;
typedef struct { integer gpu, peak; real settled; } Ledger; /* simulated_gpu.py's own; only its shape is checked here */
typedef struct { integer gpu; } Switch;                     /* accounting, persistence: on where the record exists */
typedef struct { integer gpu, pid, born, peak; real start, end; } Accounted;
typedef struct { integer gpu, add; real at, duration; } Spike;
typedef struct { integer gpu, code, from_call, to_call, delay_ms, crash; real at, until; char function[96]; } Fault;
typedef struct { integer gpu, code; real at; } Xid;

#define LIST(type, capacity) struct { size_t count; type items[capacity]; }

typedef struct {
    LIST(Driver, 1) driver;
    LIST(Gpu, MAX_GPUS) gpus;
    LIST(Process, 256) processes;
    LIST(Ledger, MAX_GPUS) ledgers;
    LIST(Switch, MAX_GPUS) accounting;
    LIST(Switch, MAX_GPUS) persistence;
    LIST(Accounted, 512) accounted;
    LIST(Spike, 512) spikes;
    LIST(Fault, 64) faults;
    LIST(Xid, 64) xids;
    real now; /* when it was read */
} State;

typedef enum { INTEGER, REAL, TEXT, RETURN } Type;
typedef struct { const char *key; Type type; size_t offset, size; } Field;
#define FIELD(record, key, type) {#key, type, offsetof(record, key), sizeof(((record *)0)->key)}

static const Field DRIVER[] = {FIELD(Driver, version, TEXT), FIELD(Driver, cuda, INTEGER)};
static const Field GPU[] = {
    FIELD(Gpu, total, INTEGER), FIELD(Gpu, reserved, INTEGER), FIELD(Gpu, mig, INTEGER), FIELD(Gpu, pci_id, INTEGER),
    FIELD(Gpu, name, TEXT), FIELD(Gpu, uuid, TEXT), FIELD(Gpu, pci, TEXT), FIELD(Gpu, capability, TEXT)};
static const Field PROCESS[] = {
    FIELD(Process, gpu, INTEGER), FIELD(Process, pid, INTEGER), FIELD(Process, mib, INTEGER),
    FIELD(Process, born, INTEGER), FIELD(Process, ghost, INTEGER), FIELD(Process, at, REAL),
    FIELD(Process, until, REAL), FIELD(Process, kind, TEXT), FIELD(Process, name, TEXT)};
static const Field LEDGER[] = {
    FIELD(Ledger, gpu, INTEGER), FIELD(Ledger, peak, INTEGER), FIELD(Ledger, settled, REAL)};
static const Field SWITCH[] = {FIELD(Switch, gpu, INTEGER)};
static const Field ACCOUNTED[] = {
    FIELD(Accounted, gpu, INTEGER), FIELD(Accounted, pid, INTEGER), FIELD(Accounted, born, INTEGER),
    FIELD(Accounted, peak, INTEGER), FIELD(Accounted, start, REAL), FIELD(Accounted, end, REAL)};
static const Field SPIKE[] = {
    FIELD(Spike, gpu, INTEGER), FIELD(Spike, add, INTEGER), FIELD(Spike, at, REAL), FIELD(Spike, duration, REAL)};
static const Field FAULT[] = {
    FIELD(Fault, gpu, INTEGER), FIELD(Fault, code, RETURN), FIELD(Fault, from_call, INTEGER),
    FIELD(Fault, to_call, INTEGER), FIELD(Fault, delay_ms, INTEGER), FIELD(Fault, crash, INTEGER),
    FIELD(Fault, at, REAL), FIELD(Fault, until, REAL), FIELD(Fault, function, TEXT)};
static const Field XID[] = {FIELD(Xid, gpu, INTEGER), FIELD(Xid, code, INTEGER), FIELD(Xid, at, REAL)};

/* A key that is not there is 0 or empty, except for these two. */
static const Gpu A_GPU = {.mig = -1};
static const Fault A_FAULT = {.gpu = NO_GPU};
static const char NOTHING[sizeof(Process)];
_Static_assert(sizeof(Process) >= sizeof(Driver) && sizeof(Process) >= sizeof(Fault), "NOTHING is large enough");

#define RECORD(name, fields, list, defaults) \
    {name, fields, COUNT(fields), sizeof(((State *)0)->list.items[0]), COUNT(((State *)0)->list.items), \
     offsetof(State, list.count), offsetof(State, list.items), defaults}

static const struct {
    const char *name; const Field *fields; size_t n_fields, size, capacity, count, items; const void *defaults;
} RECORDS[] = {
    RECORD("process", PROCESS, processes, NOTHING),
    RECORD("spike", SPIKE, spikes, NOTHING),
    RECORD("fault", FAULT, faults, &A_FAULT),
    RECORD("accounted", ACCOUNTED, accounted, NOTHING),
    RECORD("gpu", GPU, gpus, &A_GPU),
    RECORD("ledger", LEDGER, ledgers, NOTHING),
    RECORD("driver", DRIVER, driver, NOTHING),
    RECORD("accounting", SWITCH, accounting, NOTHING),
    RECORD("persistence", SWITCH, persistence, NOTHING),
    RECORD("xid", XID, xids, NOTHING),
};

static real now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (real)now.tv_sec + (real)now.tv_nsec / 1e9;
}

static void sleep_ms(integer ms)
{
    struct timespec left = {ms / 1000, (ms % 1000) * 1000000};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {}
}

static const char *state_path(void)
{
    const char *path = getenv("SIMULATED_GPU_STATE");
    return path != NULL && path[0] != '\0' ? path : DEFAULT_STATE;
}

/* Digits, with a point where a fraction is allowed. Not strtod(): that follows the locale of the host program. */
static bool parse_number(const char *text, Type type, void *into)
{
    integer whole = 0;
    real fraction = 0, unit = 1;
    const char *c = text;
    for (; *c >= '0' && *c <= '9'; c++)
        whole = whole * 10 + (*c - '0');
    if (c == text)
        return false;
    if (type == REAL && *c == '.')
        for (c++; *c >= '0' && *c <= '9'; c++)
            fraction += (*c - '0') * (unit /= 10);
    if (type == REAL)
        *(real *)into = (real)whole + fraction;
    else
        *(integer *)into = whole;
    return *c == '\0';
}

static bool parse_value(const Field *field, const char *text, void *into)
{
    if (field->type == TEXT) {
        if (strlen(text) >= field->size)
            return false;
        strcpy(into, text);
        return true;
    }
    if (field->type == RETURN) {
        for (size_t i = 0; i < COUNT(RETURNS); i++)
            if (strcmp(RETURNS[i].name, text) == 0) {
                *(integer *)into = RETURNS[i].code;
                return true;
            }
        return false;
    }
    return parse_number(text, field->type, into);
}

static char *cut_word(char **rest, const char *ends)
{
    char *word = *rest + strspn(*rest, " \t\r");
    char *end = word + strcspn(word, ends);
    *rest = *end == '\0' ? end : end + 1;
    *end = '\0';
    return word;
}

/* Adds the record on this line (which is cut up) to the state. Returns NULL, or what is wrong with it. */
static const char *parse_line(State *state, char *line, char **culprit)
{
    char *rest = line;
    size_t r = 0;
    char *name = *culprit = cut_word(&rest, " \t\r");
    if (name[0] == '\0' || name[0] == '#')
        return NULL;
    while (r < COUNT(RECORDS) && strcmp(RECORDS[r].name, name) != 0)
        r++;
    if (r == COUNT(RECORDS))
        return "unknown record";
    size_t *count = (size_t *)((char *)state + RECORDS[r].count);
    if (*count == RECORDS[r].capacity)
        return "too many records of kind";
    char *record = (char *)state + RECORDS[r].items + *count * RECORDS[r].size;
    memcpy(record, RECORDS[r].defaults, RECORDS[r].size);
    for (;;) {
        size_t f = 0;
        char *key = *culprit = cut_word(&rest, "= \t\r");
        if (key[0] == '\0')
            break;
        while (f < RECORDS[r].n_fields && strcmp(RECORDS[r].fields[f].key, key) != 0)
            f++;
        if (f == RECORDS[r].n_fields)
            return "unknown key";
        char *value = rest[0] == '"' ? (rest++, cut_word(&rest, "\"")) : cut_word(&rest, " \t\r");
        if (!parse_value(&RECORDS[r].fields[f], value, record + RECORDS[r].fields[f].offset))
            return "bad value of key";
    }
    ++*count;
    return NULL;
}

static void empty(State *state)
{
    for (size_t r = 0; r < COUNT(RECORDS); r++)
        *(size_t *)((char *)state + RECORDS[r].count) = 0;
}

/* The state file's text (to be freed) and mode. Writers rename a new file over the old one, so an opened one is whole. */
static nvmlReturn_t read_text(char **text, mode_t *mode)
{
    int file = open(state_path(), O_RDONLY | O_CLOEXEC);
    struct stat about;
    if (file < 0)
        return errno == EACCES ? NO_PERMISSION : DRIVER_NOT_LOADED;
    nvmlReturn_t code = UNKNOWN;
    if (fstat(file, &about) == 0 && (*text = malloc((size_t)about.st_size + 1)) != NULL) {
        size_t got = 0;
        ssize_t n = 1;
        while (got < (size_t)about.st_size && (n = read(file, *text + got, (size_t)about.st_size - got)) > 0)
            got += (size_t)n;
        (*text)[got] = '\0';
        *mode = about.st_mode & 0777;
        code = SUCCESS;
    }
    close(file);
    return code;
}

static nvmlReturn_t read_state(State *state)
{
    char *text, *line, *culprit;
    mode_t mode;
    unsigned number = 0;
    nvmlReturn_t code = read_text(&text, &mode);
    if (code != SUCCESS)
        return code;
    empty(state);
    char *rest = text;
    while (code == SUCCESS && (line = strsep(&rest, "\n")) != NULL) {
        number++;
        const char *wrong = parse_line(state, line, &culprit);
        if (wrong != NULL) {
            fprintf(stderr, "simulated NVML: %s, line %u: %s '%s'\n", state_path(), number, wrong, culprit);
            code = UNKNOWN;
        }
    }
    if (code == SUCCESS && state->driver.count == 0) {
        fprintf(stderr, "simulated NVML: %s: no 'driver' record\n", state_path());
        code = UNKNOWN;
    }
    state->now = now_s();
    free(text);
    return code;
}

/* Rewrites the state file without the lines that `drop` picks, and with one more line if `add` is not NULL.
 * The same lock file and rename as simulated_gpu.py uses. */
static nvmlReturn_t rewrite(bool (*drop)(const State *line, const State *all, int gpu), int gpu, const char *add)
{
    char lock_path[4096], new_path[4096], *text = NULL, *line, *culprit;
    mode_t mode;
    State *all = malloc(2 * sizeof(State)), *one = all + 1;
    snprintf(lock_path, sizeof lock_path, "%s.lock", state_path());
    snprintf(new_path, sizeof new_path, "%s.XXXXXX", state_path());
    int lock = open(lock_path, O_RDONLY | O_CREAT | O_CLOEXEC, 0644), file = -1;
    fchmod(lock, 0644); /* whatever the umask */
    nvmlReturn_t code = all == NULL || lock < 0 || flock(lock, LOCK_EX) != 0 ? NO_PERMISSION : read_state(all);
    if (code == SUCCESS)
        code = read_text(&text, &mode);
    if (code == SUCCESS && (file = mkostemp(new_path, O_CLOEXEC)) < 0)
        code = NO_PERMISSION;
    FILE *out = file < 0 ? NULL : fdopen(file, "w");
    if (out != NULL) {
        char *rest = text;
        while ((line = strsep(&rest, "\n")) != NULL) {
            char *copy = strdup(line);
            empty(one);
            if (copy != NULL && parse_line(one, copy, &culprit) == NULL && !drop(one, all, gpu) && line[0] != '\0')
                fprintf(out, "%s\n", line);
            free(copy);
        }
        if (add != NULL)
            fprintf(out, "%s gpu=%d\n", add, gpu);
        fchmod(file, mode);
        if (fclose(out) != 0 || rename(new_path, state_path()) != 0) {
            unlink(new_path);
            code = UNKNOWN;
        }
    }
    if (lock >= 0)
        close(lock);
    free(text);
    free(all);
    return code;
}

/* ---- what the records mean ---- */

/* Does the process still run? A zombie holds no GPU memory, and a reused pid is another process. */
static bool alive(integer pid, integer born)
{
    char path[32], text[1024];
    snprintf(path, sizeof path, "/proc/%lld/stat", pid);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return false;
    ssize_t n = read(file, text, sizeof text - 1);
    close(file);
    text[n > 0 ? n : 0] = '\0';
    char *field = strrchr(text, ')'); /* the 2nd field; the name in it may hold anything */
    if (field == NULL || field[1] == '\0' || strchr("ZXx", field[2]) != NULL)
        return false;
    for (int i = 2; i < 22 && field != NULL; i++)
        field = strchr(field + 1, ' ');
    return born == 0 || (field != NULL && atoll(field) == born);
}

static bool holds_now(const State *state, const Process *process)
{
    return process->at <= state->now && (process->until == 0 || state->now < process->until)
        && (process->ghost || alive(process->pid, process->born));
}

/* Allocated memory: what processes and spikes take, without the reserved part, never more than there is. */
static integer used_mib(const State *state, int gpu)
{
    const Gpu *card = &state->gpus.items[gpu];
    integer used = 0;
    for (size_t i = 0; i < state->processes.count; i++) {
        const Process *process = &state->processes.items[i];
        if (process->gpu == gpu && holds_now(state, process))
            used += process->mib;
    }
    for (size_t i = 0; i < state->spikes.count; i++) {
        const Spike *spike = &state->spikes.items[i];
        if (spike->gpu == gpu && spike->at <= state->now && state->now < spike->at + spike->duration)
            used += spike->add;
    }
    return used < card->total - card->reserved ? used : card->total - card->reserved;
}

static bool is_on(const Switch *switches, size_t count, int gpu)
{
    for (size_t i = 0; i < count; i++)
        if (switches[i].gpu == gpu)
            return true;
    return false;
}
#define IS_ON(state, list, gpu) is_on((state)->list.items, (state)->list.count, gpu)

static int driver_branch(const State *state)
{
    return atoi(state->driver.items[0].version);
}

static nvmlReturn_t strike(const State *state, const char *function, int gpu, integer call)
{
    for (size_t i = 0; i < state->faults.count; i++) {
        const Fault *fault = &state->faults.items[i];
        if ((fault->gpu != NO_GPU && fault->gpu != gpu) || fnmatch(fault->function, function, 0) != 0
            || call < fault->from_call || (fault->to_call != 0 && call > fault->to_call)
            || state->now < fault->at || (fault->until != 0 && state->now >= fault->until))
            continue;
        sleep_ms(fault->delay_ms);
        if (fault->crash)
            abort();
        if (fault->code != SUCCESS)
            return (nvmlReturn_t)fault->code;
    }
    return SUCCESS;
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
    for (size_t i = 0; i < COUNT(RETURNS); i++)
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

static void fill_v1(void *infos, unsigned i, const Process *process)
{
    ((nvmlProcessInfo_v1_t *)infos)[i] =
        (nvmlProcessInfo_v1_t){(unsigned)process->pid, (unsigned long long)process->mib * MIB};
}

static void fill_v2(void *infos, unsigned i, const Process *process)
{
    ((nvmlProcessInfo_v2_t *)infos)[i] = (nvmlProcessInfo_v2_t){
        (unsigned)process->pid, (unsigned long long)process->mib * MIB, NOT_AVAILABLE, NOT_AVAILABLE};
}

static nvmlReturn_t list_processes(const State *state, int gpu, const char *kind, unsigned *count, void *infos,
                                   void (*fill)(void *, unsigned, const Process *))
{
    unsigned found = 0, room = infos == NULL ? 0 : *count;
    for (size_t i = 0; i < state->processes.count; i++) {
        const Process *process = &state->processes.items[i];
        if (process->gpu != gpu || !is_listed(process, kind) || !holds_now(state, process))
            continue;
        if (found < room)
            fill(infos, found, process);
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
        return rewrite(is_one, gpu, mode == 1 ? #list : NULL); \
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
    return rewrite(is_ended_accounted, gpu, NULL);
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
