/* signature.c: see signature.h.
 *
 * ssh-keygen gets the very bytes that are used, in files without a name: nobody can change them
 * between the two. It answers by its exit code; its output is believed only for the name, which a
 * second call then verifies.
 */
#include "signature.h"

#include "mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define ANSWER_MAX 4096

/* A file without a name, at its start; -1 with errno. It stays open in the child. */
static int
nameless(const struct blob *b)
{
    int fd = memfd_create("hardsock-tune", 0);

    if (fd >= 0 && b != NULL &&
        (write(fd, b->data, b->len) != (ssize_t)b->len || lseek(fd, 0, SEEK_SET) != 0)) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

static _Noreturn void
become_ssh_keygen(char *const argv[], int in, int out)
{
    static char path[] = "PATH=/usr/local/bin:/usr/bin:/bin", locale[] = "LC_ALL=C";
    static const char *const places[] = {"/usr/bin/ssh-keygen", "/usr/local/bin/ssh-keygen",
                                         "/bin/ssh-keygen"};
    char *env[] = {path, locale, NULL};
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

    if (dup2(in, STDIN_FILENO) >= 0 && dup2(out, STDOUT_FILENO) >= 0 &&
        dup2(null, STDERR_FILENO) >= 0)
        for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
            (void)execve(places[i], argv, env);
    _exit(127);
}

/* Its exit code, 127 if it could not be run, and what it printed. */
static int
ssh_keygen(char *const argv[], int in, char answer[ANSWER_MAX])
{
    int out = nameless(NULL), status = -1;
    pid_t child;
    ssize_t n;

    answer[0] = '\0';
    if (out < 0)
        return 127;
    if ((child = fork()) == 0)
        become_ssh_keygen(argv, in, out);
    while (child > 0 && waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            child = -1;
    n = pread(out, answer, ANSWER_MAX - 1, 0);
    (void)close(out);
    answer[n > 0 ? n : 0] = '\0';
    return child > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : 127;
}

const char *
signature_verify(const struct blob *signers, const struct blob *signature, const struct blob *text,
                 const char **ret_why)
{
    int list = nameless(signers), sig = nameless(signature), in = nameless(text), code = 127;
    char *list_path = mem_format("/proc/self/fd/%d", list);
    char *sig_path = mem_format("/proc/self/fd/%d", sig);
    char program[] = "ssh-keygen", y[] = "-Y", f[] = "-f", s[] = "-s", i[] = "-I", n[] = "-n";
    char find[] = "find-principals", verify[] = "verify", space[] = SIGNATURE_NAMESPACE;
    char answer[ANSWER_MAX], *name = NULL;

    *ret_why = "ssh-keygen could not be run";
    if (list >= 0 && sig >= 0 && in >= 0) {
        char *const who[] = {program, y, find, s, sig_path, f, list_path, NULL};

        code = ssh_keygen(who, in, answer);
        answer[strcspn(answer, "\n")] = '\0';
        name = mem_dup(answer);
    }
    if (code != 127 && (code != 0 || *name == '\0')) {
        *ret_why = "is not signed by one of the signers that are allowed";
    } else if (code == 0) {
        char *const whether[] = {program, y, verify, f, list_path, i,
                                 name,    n, space,  s, sig_path,  NULL};

        code = ssh_keygen(whether, in, answer);
        if (code != 127)
            *ret_why = "does not match its signature, or that is not for now or not for profiles";
    }
    if (list >= 0)
        (void)close(list);
    if (sig >= 0)
        (void)close(sig);
    if (in >= 0)
        (void)close(in);
    return code == 0 ? name : NULL;
}
