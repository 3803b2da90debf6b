/* The state of the fake NVML: the file $FAKE_NVML, read again on each call.

   Each line is `key value`. `driver_version` is missing where no driver is loaded.
   `device UUID` starts a device and `instance UUID` a MIG instance of the last device; the lines
   that follow describe it. A number without a line is not supported. Energy is the value at
   `saved_at_seconds` of the monotonic clock, and grows by power times time. */

#pragma once

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
    THROTTLE_REASONS,
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
    [THROTTLE_REASONS] = "throttle_reasons",
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
    char uuid[96], name[96];
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

/* Slot 0 of a device is the device itself, the others are its MIG instances. A handle is the index
   into `slots` plus 1. */
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

static struct device *add(unsigned slot, const char *uuid)
{
    struct device *device = &state.slots[slot];
    copy(uuid, device->uuid, sizeof device->uuid);
    for (int index = 0; index < NUMBERS; index++)
        device->numbers[index] = NAN;
    return device;
}

static struct device *add_device(const char *uuid)
{
    return state.devices < DEVICES ? add(SLOTS * state.devices++, uuid) : NULL;
}

static struct device *add_instance(const char *uuid)
{
    unsigned slot = SLOTS * (state.devices - 1) + 1;
    for (unsigned end = slot + INSTANCES; slot < end; slot++)
        if (!*state.slots[slot].uuid)
            return add(slot, uuid);
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

static int set_value(struct device *device, const char *key, const char *value)
{
    if (!strcmp(key, "name"))
        return copy(value, device->name, sizeof device->name);
    if (!strcmp(key, "processes"))
        return add_process(&device->compute, value);
    if (!strcmp(key, "graphics_processes"))
        return add_process(&device->graphics, value);
    for (int index = 0; index < NUMBERS; index++)
        if (!strcmp(key, KEYS[index])) {
            device->numbers[index] = atof(value);
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
            device = add_device(value);
        else if (!strcmp(key, "instance"))
            device = add_instance(value);
        else if (!device || set_value(device, key, value))
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

static int start_call(void)
{
    return users ? read_state() : UNINITIALIZED;
}

static int lost(unsigned slot)
{
    return state.slots[slot / SLOTS * SLOTS].numbers[LOST] == 1;
}

static int return_handle(unsigned slot, uintptr_t *handle)
{
    *handle = slot + 1;
    return lost(slot) ? GPU_IS_LOST : SUCCESS;
}

static int find(uintptr_t handle, struct device **device)
{
    int result = start_call();
    if (result)
        return result;
    if (!handle || handle > DEVICES * SLOTS || !*state.slots[handle - 1].uuid)
        return INVALID_ARGUMENT;
    *device = &state.slots[handle - 1];
    return lost(handle - 1) ? GPU_IS_LOST : SUCCESS;
}

static int number(uintptr_t handle, enum number key, double *value)
{
    struct device *device;
    int result = find(handle, &device);
    if (result)
        return result;
    *value = device->numbers[key];
    return isnan(*value) ? NOT_SUPPORTED : SUCCESS;
}

static int rounded(uintptr_t handle, enum number key, double unit, unsigned *value)
{
    double stored;
    int result = number(handle, key, &stored);
    if (!result)
        *value = (unsigned)(stored / unit + 0.5);
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
