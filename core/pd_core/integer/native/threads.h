/* A team of threads that do one piece of work together, and meet between its parts. */
#ifndef PD_THREADS_H
#define PD_THREADS_H

typedef struct pd_team pd_team;

/* Begin size - 1 threads; the caller is the team's first. Null: the system gives none. */
pd_team *pd_team_begin(int size);
/* Call work(context, thread) once for each thread, and return when all have ended. */
void pd_team_run(pd_team *team, void (*work)(void *context, int thread), void *context);
/* Called by each thread within its work: return when all have called it. */
void pd_team_meet(pd_team *team);
void pd_team_end(pd_team *team);

#endif
