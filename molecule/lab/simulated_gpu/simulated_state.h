/* The state of the simulated GPUs, as both simulated libraries read and write it. README.md describes the file. */
#ifndef SIMULATED_STATE_H
#define SIMULATED_STATE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define API __attribute__((visibility("default")))
#define MIB (1024ULL * 1024ULL)
#define MAX_GPUS 16
#define NO_GPU (-1)
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* As in nvml.h. */
typedef enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, TIMEOUT = 10, FUNCTION_NOT_FOUND = 13, MEMORY = 20,
    ARGUMENT_VERSION_MISMATCH = 25, UNKNOWN = 999
} nvmlReturn_t;

extern const struct Return { int code; const char *name, *text; } RETURNS[];
extern const size_t N_RETURNS;

typedef long long integer;
typedef double real; /* seconds since the epoch, or a duration in seconds */

typedef struct { char version[80]; integer cuda, cuda_fails; } Driver; /* cuda_fails is the stand-ins' own */
typedef struct {
    integer total, reserved, mig, pci_id, compute_mode;
    char name[96], uuid[80], pci[32], capability[8], lists[16];
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

/* The state file as it is now, whole: writers rename a new file over the old one. */
nvmlReturn_t read_state(State *state);

/* Rewrites the state file without the lines that `drop` picks, and with what `add` (or NULL) writes after them. If `add`
 * refuses, nothing is changed. Other writers wait. */
typedef bool Drop(const State *line, const State *all, int gpu);
typedef nvmlReturn_t Add(const State *all, int gpu, FILE *out);
nvmlReturn_t rewrite(int gpu, Drop *drop, Add *add);

real now_s(void);
void sleep_ms(integer ms);

/* When a process was started, as /proc has it; 0 if it has ended (a zombie holds no GPU memory). */
integer born_of(integer pid);
bool holds_now(const State *state, const Process *process);

/* Allocated memory: what processes and spikes take, without the reserved part, never more than there is. */
integer used_mib(const State *state, int gpu);

bool is_on(const Switch *switches, size_t count, int gpu);
#define IS_ON(state, list, gpu) is_on((state)->list.items, (state)->list.count, gpu)

/* What is scripted to happen to this call: it waits, it crashes, or it is told to return something else. */
nvmlReturn_t strike(const State *state, const char *function, int gpu, integer call);

#endif
