/* The state of the simulated GPUs: one text file, read anew at every call. Part of both simulated libraries. */
#define _GNU_SOURCE
#include "simulated_state.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_STATE "/run/simulated-gpu/state"

const struct Return RETURNS[] = {
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
const size_t N_RETURNS = COUNT(RETURNS);

/* ---- one record a line, `record key=value key="some text"` ---- */

typedef enum { INTEGER, REAL, TEXT, RETURN } Type;
typedef struct { const char *key; Type type; size_t offset, size; } Field;
#define FIELD(record, key, type) {#key, type, offsetof(record, key), sizeof(((record *)0)->key)}

static const Field DRIVER[] = {FIELD(Driver, version, TEXT), FIELD(Driver, cuda, INTEGER),
                               FIELD(Driver, cuda_fails, INTEGER)};
static const Field GPU[] = {
    FIELD(Gpu, total, INTEGER), FIELD(Gpu, reserved, INTEGER), FIELD(Gpu, mig, INTEGER), FIELD(Gpu, pci_id, INTEGER),
    FIELD(Gpu, compute_mode, INTEGER),
    FIELD(Gpu, name, TEXT), FIELD(Gpu, uuid, TEXT), FIELD(Gpu, pci, TEXT), FIELD(Gpu, capability, TEXT),
    FIELD(Gpu, lists, TEXT)};
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

real now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (real)now.tv_sec + (real)now.tv_nsec / 1e9;
}

void sleep_ms(integer ms)
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
        for (size_t i = 0; i < N_RETURNS; i++)
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

nvmlReturn_t read_state(State *state)
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

/* The same lock file and rename as simulated_gpu.py uses. */
nvmlReturn_t rewrite(int gpu, Drop *drop, Add *add)
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
            code = add(all, gpu, out);
        fchmod(file, mode);
        if (fclose(out) != 0 && code == SUCCESS)
            code = UNKNOWN;
        if (code == SUCCESS && rename(new_path, state_path()) != 0)
            code = UNKNOWN;
        if (code != SUCCESS)
            unlink(new_path);
    }
    if (lock >= 0)
        close(lock);
    free(text);
    free(all);
    return code;
}

/* ---- what the records mean ---- */

integer born_of(integer pid)
{
    char path[32], text[1024];
    snprintf(path, sizeof path, "/proc/%lld/stat", pid);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return 0;
    ssize_t n = read(file, text, sizeof text - 1);
    close(file);
    text[n > 0 ? n : 0] = '\0';
    char *field = strrchr(text, ')'); /* the 2nd field; the name in it may hold anything */
    if (field == NULL || field[1] == '\0' || strchr("ZXx", field[2]) != NULL)
        return 0;
    for (int i = 2; i < 22 && field != NULL; i++)
        field = strchr(field + 1, ' ');
    return field == NULL ? 0 : atoll(field);
}

/* Does the process still run? A reused pid is another process. */
static bool alive(integer pid, integer born)
{
    integer now = born_of(pid);
    return now != 0 && (born == 0 || born == now);
}

bool holds_now(const State *state, const Process *process)
{
    return process->at <= state->now && (process->until == 0 || state->now < process->until)
        && (process->ghost || alive(process->pid, process->born));
}

integer used_mib(const State *state, int gpu)
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

bool is_on(const Switch *switches, size_t count, int gpu)
{
    for (size_t i = 0; i < count; i++)
        if (switches[i].gpu == gpu)
            return true;
    return false;
}

nvmlReturn_t strike(const State *state, const char *function, int gpu, integer call)
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
