/* bin/python3 of a prover bundle: starts the bundle's own Python under the bundle's own loader.
 *
 * A container's image may have another libc, or none, and no shell; so this is a static program
 * without a libc. It finds the bundle from its own place, keeps of the environment only what
 * `kept` names, sets what makes Python and Triton look nowhere but here, and becomes
 *
 *     lib/ld-linux-x86-64.so.2 --library-path ... --argv0 bin/python3 libexec/python3 ARGUMENTS
 *
 * The driver's libraries (libcuda, NVML) are the host's: they are looked for after the bundle's own,
 * in the folders of LD_LIBRARY_PATH that hold libcuda, in /usr/local/nvidia, and where the loader
 * looks anyhow. Other folders would bring an image's CUDA before the bundle's. Build: cc -O2 -static -nostdlib
 * -ffreestanding -fno-stack-protector -fno-builtin. x86-64 Linux only.
 */

enum { WRITE = 1, ACCESS = 21, EXIT = 60, EXECVE = 59, READLINK = 89, AT_EXECFN = 31, MOST = 1 << 18 };

typedef unsigned long word;

static char text[MOST];      /* every string that is made here */
static word used;
static char *argv_out[4096];
static char *envp_out[4096];

static long call(long number, word a, word b, word c)
{
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c)
                     : "rcx", "r11", "memory");
    return result;
}

static word length(const char *s)
{
    word n = 0;
    while (s[n]) n++;
    return n;
}

static void fail(const char *why)
{
    call(WRITE, 2, (word)why, length(why));
    call(EXIT, 127, 0, 0);
    for (;;) {}
}

static int starts(const char *s, const char *with)
{
    while (*with) if (*s++ != *with++) return 0;
    return 1;
}

/* Adds to the string that is being made; `end` closes it. */
static void add(const char *s)
{
    for (; *s; s++) {
        if (used >= MOST - 1) fail("graval bundle: the environment is too large\n");
        text[used++] = *s;
    }
}

static char *end(word from)
{
    if (used >= MOST) fail("graval bundle: the environment is too large\n");
    text[used++] = 0;
    return text + from;
}

static char *joined(const char *a, const char *b, const char *c)
{
    word from = used;
    add(a), add(b), add(c);
    return end(from);
}

static const char *const kept[] = {"CUDA_VISIBLE_DEVICES=", "CUDA_DEVICE_ORDER=", "NVIDIA_",
    "TMPDIR=", "LANG=", "OMP_NUM_THREADS=", "OPENBLAS_NUM_THREADS=", "HOME=", 0};
static const char *const kept_while_building[] = {"PATH=", "CC=", "LD_LIBRARY_PATH=",
    "GRAVAL_BUNDLE_BUILD=", 0};

static int any(const char *s, const char *const *prefixes)
{
    for (; *prefixes; prefixes++) if (starts(s, *prefixes)) return 1;
    return 0;
}

static const char *get(char **envp, const char *name)
{
    for (; *envp; envp++) if (starts(*envp, name)) return *envp + length(name);
    return 0;
}

/* The folders of a list a:b:c that hold libcuda.so.1; at most `most` of them. */
static word driver_folders(const char *list, char **found, word most)
{
    word count = 0, from;
    while (list && *list && count < most) {
        from = used;
        for (; *list && *list != ':'; list++) {
            if (used >= MOST - 32) fail("graval bundle: the environment is too large\n");
            text[used++] = *list;
        }
        if (*list == ':') list++;
        add("/libcuda.so.1");
        if (call(ACCESS, (word)end(from), 0, 0) != 0) continue;
        text[used - length("/libcuda.so.1") - 1] = 0;
        found[count++] = text + from;
    }
    return count;
}

/* The bundle's folder: two levels above this program. */
static char *find_root(const char *execfn)
{
    word from = used, at, cuts = 0;
    long n = call(READLINK, (word)"/proc/self/exe", (word)(text + used), MOST / 2);
    if (n > 0) used += (word)n;
    else if (execfn) add(execfn); /* no /proc here */
    for (at = used; at > from && cuts < 2; ) if (text[--at] == '/') cuts++;
    if (cuts < 2) fail("graval bundle: start it by its absolute path\n");
    used = at;
    return end(from);
}

__attribute__((used)) static void run(word *stack)
{
    word argc = stack[0], i, count = 0, building, folders, from;
    char **argv = (char **)(stack + 1), **envp = argv + argc + 1, **at = envp, *root, *name, *driver[16];
    const char *execfn = 0, *inherited;
    word *aux;
    while (*at) at++;
    for (aux = (word *)(at + 1); aux[0]; aux += 2)
        if (aux[0] == AT_EXECFN) execfn = (const char *)aux[1];
    root = find_root(execfn);
    building = get(envp, "GRAVAL_BUNDLE_BUILD=") != 0;
    inherited = get(envp, "LD_LIBRARY_PATH=");

    for (at = envp; *at && count < 4000; at++)
        if (any(*at, kept) || (building && any(*at, kept_while_building))) envp_out[count++] = *at;
    if (!get(envp, "HOME=")) envp_out[count++] = "HOME=/";
    envp_out[count++] = joined("PYTHONHOME=", root, "");
    envp_out[count++] = joined("PYTHONPATH=", root, "/packages");
    envp_out[count++] = "PYTHONNOUSERSITE=1";
    envp_out[count++] = "PYTHONSAFEPATH=1";
    envp_out[count++] = "PYTHONDONTWRITEBYTECODE=1";
    envp_out[count++] = "PYTHONUTF8=1";
    envp_out[count++] = joined("TRITON_CACHE_DIR=", root, "/kernels");
    envp_out[count++] = "TRITON_CACHE_MANAGER=graval.prover.kernel_cache:BundledKernels";
    envp_out[count++] = "TRITON_MOCK_PTX_VERSION=graval-bundle"; /* else it would ask ptxas */
    if (!building) {
        envp_out[count++] = joined("PATH=", root, "/bin"); /* no tools but ours: none */
        envp_out[count++] = joined("TRITON_LIBCUDA_PATH=", root, "/lib"); /* else: ldconfig */
    }

    argv_out[0] = joined(root, "/lib/ld-linux-x86-64.so.2", "");
    argv_out[1] = "--library-path";
    folders = driver_folders(inherited, driver, 16);
    from = used;
    add(root), add("/lib");
    for (i = 0; i < folders; i++) add(":"), add(driver[i]);
    add(":/usr/local/nvidia/lib64:/usr/local/nvidia/lib");
    argv_out[2] = end(from);
    argv_out[3] = "--argv0";
    name = joined(root, "/bin/python3", "");
    argv_out[4] = name;
    argv_out[5] = joined(root, "/libexec/python3", "");
    if (argc > 4000) fail("graval bundle: too many arguments\n");
    for (i = 1; i < argc; i++) argv_out[5 + i] = argv[i];
    call(EXECVE, (word)argv_out[0], (word)argv_out, (word)envp_out);
    fail("graval bundle: its loader could not be started\n");
}

__asm__(".globl _start\n_start:\n  xor %ebp, %ebp\n  mov %rsp, %rdi\n  and $-16, %rsp\n  call run\n");
