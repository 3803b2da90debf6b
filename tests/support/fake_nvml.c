/* A stand-in for NVIDIA's management library that answers each call from the file $FAKE_NVML.

   One fact a line, `key value`. `driver_version` is missing where no driver is loaded.
   `device UUID` begins a device and `instance UUID` a MIG instance of the last device; what
   follows is told of that one, and a number that is not told is not supported. Energy is told as
   it stood at `saved_at_seconds` of the monotonic clock, and grows by power times time. */

#include <math.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    SUCCESS = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9,
    GPU_IS_LOST = 15,
    UNKNOWN = 999,
};

enum { DEVICES = 16, INSTANCES = 7, SLOTS = 1 + INSTANCES, PROCESSES = 16 };

enum number {
    MEMORY_TOTAL,
    MEMORY_USED,
    MEMORY_RESERVED,
    POWER,
    ENERGY,
    UTILIZATION,
    TEMPERATURE,
    GRAPHICS_CLOCK,
    MEMORY_CLOCK,
    THROTTLE_REASONS,
    COMPUTE_CAPABILITY,
    MIG,
    LOST,
    NUMBERS,
};

static const char *const KEYS[NUMBERS] = {
    [MEMORY_TOTAL] = "memory_total_bytes",
    [MEMORY_USED] = "memory_used_bytes",
    [MEMORY_RESERVED] = "memory_reserved_bytes",
    [POWER] = "power_watts",
    [ENERGY] = "energy_joules",
    [UTILIZATION] = "utilization_percent",
    [TEMPERATURE] = "temperature_celsius",
    [GRAPHICS_CLOCK] = "graphics_clock_megahertz",
    [MEMORY_CLOCK] = "memory_clock_megahertz",
    [THROTTLE_REASONS] = "throttle_reasons",
    [COMPUTE_CAPABILITY] = "compute_capability",
    [MIG] = "mig",
    [LOST] = "lost",
};

struct process {
    unsigned pid;
    unsigned long long used_bytes;
    unsigned gpu_instance, compute_instance;
};

struct processes {
    unsigned count;
    struct process rows[PROCESSES];
};

struct device {
    char uuid[96], name[96], pci_bus_id[32];
    double numbers[NUMBERS];
    struct processes compute, graphics;
};

struct memory {
    unsigned long long total, free, used;
};

struct memory_v2 {
    unsigned version;
    unsigned long long total, reserved, free, used;
};

struct pci {
    char legacy_bus_id[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char bus_id[32];
};

struct utilization {
    unsigned gpu, memory;
};

/* Slot 0 of a device is the whole; a handle is its place in `slots`, counted from 1. */
static _Thread_local struct {
    char driver_version[80];
    double saved_at_seconds;
    unsigned devices;
    struct device slots[DEVICES * SLOTS];
} state;

static atomic_int users;

static int copy(const char *source, char *text, unsigned size)
{
    return snprintf(text, size, "%s", source) < (int)size ? SUCCESS : INSUFFICIENT_SIZE;
}

static struct device *begin(unsigned place, const char *uuid)
{
    struct device *device = &state.slots[place];
    copy(uuid, device->uuid, sizeof device->uuid);
    for (int which = 0; which < NUMBERS; which++)
        device->numbers[which] = NAN;
    return device;
}

static struct device *begin_device(const char *uuid)
{
    return state.devices < DEVICES ? begin(SLOTS * state.devices++, uuid) : NULL;
}

static struct device *begin_instance(const char *uuid)
{
    unsigned place = SLOTS * (state.devices - 1) + 1;
    for (unsigned end = place + INSTANCES; place < end; place++)
        if (!*state.slots[place].uuid)
            return begin(place, uuid);
    return NULL;
}

static int add_process(struct processes *processes, const char *value)
{
    if (processes->count == PROCESSES)
        return UNKNOWN;
    struct process *row = &processes->rows[processes->count++];
    row->gpu_instance = row->compute_instance = UINT32_MAX;
    return sscanf(value, "%u %llu", &row->pid, &row->used_bytes) == 2 ? SUCCESS : UNKNOWN;
}

static int tell(struct device *device, const char *key, const char *value)
{
    if (!strcmp(key, "name"))
        return copy(value, device->name, sizeof device->name);
    if (!strcmp(key, "pci_bus_id"))
        return copy(value, device->pci_bus_id, sizeof device->pci_bus_id);
    if (!strcmp(key, "processes"))
        return add_process(&device->compute, value);
    if (!strcmp(key, "graphics_processes"))
        return add_process(&device->graphics, value);
    for (int which = 0; which < NUMBERS; which++)
        if (!strcmp(key, KEYS[which])) {
            device->numbers[which] = atof(value);
            return SUCCESS;
        }
    return UNKNOWN;
}

static int read_lines(FILE *file)
{
    char key[64], value[128];
    struct device *device = NULL;
    memset(&state, 0, sizeof state);
    while (fscanf(file, "%63s %127[^\n]", key, value) == 2) {
        if (!strcmp(key, "driver_version"))
            copy(value, state.driver_version, sizeof state.driver_version);
        else if (!strcmp(key, "saved_at_seconds"))
            state.saved_at_seconds = atof(value);
        else if (!strcmp(key, "device"))
            device = begin_device(value);
        else if (!strcmp(key, "instance"))
            device = begin_instance(value);
        else if (!device || tell(device, key, value))
            return UNKNOWN;
    }
    return feof(file) ? SUCCESS : UNKNOWN;
}

static int read_state(void)
{
    const char *path = getenv("FAKE_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file)
        return UNKNOWN;
    int result = read_lines(file);
    fclose(file);
    return result;
}

static int begin_call(void)
{
    return users ? read_state() : UNINITIALIZED;
}

static int lost(unsigned place)
{
    return state.slots[place / SLOTS * SLOTS].numbers[LOST] == 1;
}

static int give_handle(unsigned place, uintptr_t *handle)
{
    *handle = place + 1;
    return lost(place) ? GPU_IS_LOST : SUCCESS;
}

static int find(uintptr_t handle, struct device **device)
{
    int result = begin_call();
    if (result)
        return result;
    if (!handle || handle > DEVICES * SLOTS || !*state.slots[handle - 1].uuid)
        return INVALID_ARGUMENT;
    *device = &state.slots[handle - 1];
    return lost(handle - 1) ? GPU_IS_LOST : SUCCESS;
}

static int number(uintptr_t handle, enum number which, double *value)
{
    struct device *device;
    int result = find(handle, &device);
    if (result)
        return result;
    *value = device->numbers[which];
    return isnan(*value) ? NOT_SUPPORTED : SUCCESS;
}

static int whole(uintptr_t handle, enum number which, double unit, unsigned *value)
{
    double told;
    int result = number(handle, which, &told);
    if (!result)
        *value = (unsigned)(told / unit + 0.5);
    return result;
}

static int list(const struct processes *processes, unsigned *count, struct process *rows)
{
    unsigned room = *count;
    *count = processes->count;
    if (room < processes->count)
        return INSUFFICIENT_SIZE;
    if (processes->count)
        memcpy(rows, processes->rows, processes->count * sizeof *rows);
    return SUCCESS;
}

int nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    int result = read_state();
    if (result)
        return result;
    if (!*state.driver_version)
        return DRIVER_NOT_LOADED;
    users++;
    return SUCCESS;
}

int nvmlInit_v2(void)
{
    return nvmlInitWithFlags(0);
}

int nvmlInit(void)
{
    return nvmlInitWithFlags(0);
}

int nvmlShutdown(void)
{
    if (!users)
        return UNINITIALIZED;
    users--;
    return SUCCESS;
}

const char *nvmlErrorString(int result)
{
    switch (result) {
    case SUCCESS: return "Success";
    case UNINITIALIZED: return "Uninitialized";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case NOT_FOUND: return "Not Found";
    case INSUFFICIENT_SIZE: return "Insufficient Size";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case GPU_IS_LOST: return "GPU is lost";
    default: return "Unknown Error";
    }
}

int nvmlSystemGetDriverVersion(char *version, unsigned size)
{
    int result = begin_call();
    return result ? result : copy(state.driver_version, version, size);
}

int nvmlDeviceGetCount_v2(unsigned *count)
{
    int result = begin_call();
    if (!result)
        *count = state.devices;
    return result;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, uintptr_t *handle)
{
    int result = begin_call();
    if (result)
        return result;
    return index < state.devices ? give_handle(SLOTS * index, handle) : INVALID_ARGUMENT;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, uintptr_t *handle)
{
    int result = begin_call();
    if (result)
        return result;
    for (unsigned place = 0; place < DEVICES * SLOTS; place++)
        if (*uuid && !strcmp(state.slots[place].uuid, uuid))
            return give_handle(place, handle);
    return NOT_FOUND;
}

int nvmlDeviceGetUUID(uintptr_t handle, char *uuid, unsigned size)
{
    struct device *device;
    int result = find(handle, &device);
    return result ? result : copy(device->uuid, uuid, size);
}

int nvmlDeviceGetName(uintptr_t handle, char *name, unsigned size)
{
    struct device *device;
    int result = find(handle, &device);
    return result ? result : copy(device->name, name, size);
}

int nvmlDeviceGetIndex(uintptr_t handle, unsigned *index)
{
    struct device *device;
    int result = find(handle, &device);
    unsigned place = handle - 1;
    if (!result)
        *index = place % SLOTS ? place % SLOTS - 1 : place / SLOTS;
    return result;
}

int nvmlDeviceGetPciInfo_v3(uintptr_t handle, struct pci *pci)
{
    struct device *device;
    int result = find(handle, &device);
    if (result)
        return result;
    memset(pci, 0, sizeof *pci);
    if (sscanf(device->pci_bus_id, "%x:%x:%x", &pci->domain, &pci->bus, &pci->device) != 3)
        return NOT_SUPPORTED;
    snprintf(pci->bus_id, sizeof pci->bus_id, "%s", device->pci_bus_id);
    snprintf(pci->legacy_bus_id, sizeof pci->legacy_bus_id, "%04X:%02X:%02X.0",
             pci->domain & 0xFFFF, pci->bus & 0xFF, pci->device & 0xFF);
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(uintptr_t handle, struct memory *memory)
{
    struct device *device;
    int result = find(handle, &device);
    if (result)
        return result;
    double total = device->numbers[MEMORY_TOTAL], used = device->numbers[MEMORY_USED];
    if (isnan(total) || isnan(used))
        return NOT_SUPPORTED;
    used += device->numbers[MEMORY_RESERVED];
    *memory = (struct memory){total, total - used, used};
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo_v2(uintptr_t handle, struct memory_v2 *memory)
{
    struct memory simple;
    struct device *device;
    int result = nvmlDeviceGetMemoryInfo(handle, &simple);
    if (result)
        return result;
    find(handle, &device);
    unsigned long long reserved = device->numbers[MEMORY_RESERVED];
    *memory = (struct memory_v2){
        memory->version, simple.total, reserved, simple.free, simple.used - reserved,
    };
    return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(uintptr_t handle, unsigned *count, struct process *rows)
{
    struct device *device;
    int result = find(handle, &device);
    return result ? result : list(&device->compute, count, rows);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(uintptr_t handle, unsigned *count,
                                             struct process *rows)
{
    struct device *device;
    int result = find(handle, &device);
    return result ? result : list(&device->graphics, count, rows);
}

int nvmlDeviceGetPowerUsage(uintptr_t handle, unsigned *milliwatts)
{
    return whole(handle, POWER, 1e-3, milliwatts);
}

int nvmlDeviceGetTotalEnergyConsumption(uintptr_t handle, unsigned long long *millijoules)
{
    struct device *device;
    int result = find(handle, &device);
    if (result)
        return result;
    double joules = device->numbers[ENERGY], watts = device->numbers[POWER];
    if (isnan(joules) || isnan(watts))
        return NOT_SUPPORTED;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    double seconds = now.tv_sec + now.tv_nsec * 1e-9 - state.saved_at_seconds;
    *millijoules = 1000 * (joules + watts * seconds);
    return SUCCESS;
}

int nvmlDeviceGetCurrentClocksEventReasons(uintptr_t handle, unsigned long long *reasons)
{
    double told;
    int result = number(handle, THROTTLE_REASONS, &told);
    if (!result)
        *reasons = told;
    return result;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(uintptr_t handle, unsigned long long *reasons)
{
    return nvmlDeviceGetCurrentClocksEventReasons(handle, reasons);
}

int nvmlDeviceGetUtilizationRates(uintptr_t handle, struct utilization *percent)
{
    *percent = (struct utilization){0};
    return whole(handle, UTILIZATION, 1, &percent->gpu);
}

int nvmlDeviceGetTemperature(uintptr_t handle, int sensor, unsigned *celsius)
{
    return sensor ? INVALID_ARGUMENT : whole(handle, TEMPERATURE, 1, celsius);
}

int nvmlDeviceGetClockInfo(uintptr_t handle, int type, unsigned *megahertz)
{
    return whole(handle, type == 2 ? MEMORY_CLOCK : GRAPHICS_CLOCK, 1, megahertz);
}

int nvmlDeviceGetCudaComputeCapability(uintptr_t handle, int *major, int *minor)
{
    unsigned tenths;
    int result = whole(handle, COMPUTE_CAPABILITY, 0.1, &tenths);
    if (!result) {
        *major = tenths / 10;
        *minor = tenths % 10;
    }
    return result;
}

int nvmlDeviceGetMigMode(uintptr_t handle, unsigned *current, unsigned *pending)
{
    int result = whole(handle, MIG, 1, current);
    if (!result)
        *pending = *current;
    return result;
}

int nvmlDeviceGetMaxMigDeviceCount(uintptr_t handle, unsigned *count)
{
    struct device *device;
    int result = find(handle, &device);
    if (!result)
        *count = device->numbers[MIG] == 1 ? INSTANCES : 0;
    return result;
}

int nvmlDeviceGetMigDeviceHandleByIndex(uintptr_t handle, unsigned index, uintptr_t *instance)
{
    struct device *device;
    int result = find(handle, &device);
    if (result)
        return result;
    if (device->numbers[MIG] != 1)
        return NOT_SUPPORTED;
    if (index >= INSTANCES)
        return INVALID_ARGUMENT;
    *instance = handle + 1 + index;
    return *device[1 + index].uuid ? SUCCESS : NOT_FOUND;
}

int nvmlDeviceIsMigDeviceHandle(uintptr_t handle, unsigned *answer)
{
    struct device *device;
    int result = find(handle, &device);
    if (!result)
        *answer = (handle - 1) % SLOTS != 0;
    return result;
}

int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(uintptr_t instance, uintptr_t *handle)
{
    unsigned is_instance;
    int result = nvmlDeviceIsMigDeviceHandle(instance, &is_instance);
    if (result)
        return result;
    *handle = instance - (instance - 1) % SLOTS;
    return is_instance ? SUCCESS : INVALID_ARGUMENT;
}
