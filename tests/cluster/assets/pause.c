/* An init that reaps. Without arguments: the pause program of a pod sandbox, which holds the pod's
   namespaces until it is told to end. With arguments: runs them as a child and ends with it, as the first
   process of a node's PID namespace, where orphaned shims would otherwise stay as zombies. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void end(int signal) { (void)signal; _exit(0); }
static void reap(int signal) { (void)signal; while (waitpid(-1, 0, WNOHANG) > 0) {} }

int main(int argc, char **argv) {
  struct sigaction action = {0};
  if (argc > 1) {
    pid_t child = fork(), done;
    int status = 0;
    if (child < 0) return 1;
    if (child == 0) { execvp(argv[1], argv + 1); _exit(127); }
    do done = wait(&status); while (done != child && done > 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
  }
  action.sa_handler = end;
  sigaction(SIGTERM, &action, 0);
  sigaction(SIGINT, &action, 0);
  action.sa_handler = reap;
  action.sa_flags = SA_NOCLDSTOP;
  sigaction(SIGCHLD, &action, 0);
  for (;;) pause();
}
