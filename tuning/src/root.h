/* root.h: files of the system, which --root may look for below another directory.
 *
 * Below such a root symbolic links lead where they would if it were /: those of an image never
 * reach a file of the machine that looks at it. Paths are absolute; root is "" for the real one.
 */
#ifndef TUNE_ROOT_H
#define TUNE_ROOT_H

#include <dirent.h>

/* open(2) without links that lead out. -1 with errno. */
int root_open(const char *root, const char *path, int flags);
DIR *root_opendir(const char *root, const char *path);
/* The directory, made if it is not there; what it stands in must be. -1 with errno. */
int root_make_dir(const char *root, const char *parent, const char *name, unsigned mode);
/* Beneath a directory: no links, no "..", no other file system. */
int open_beneath(int dir, const char *path, int flags);

#endif
