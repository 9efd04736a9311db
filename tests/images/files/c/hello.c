#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	printf("hello from musl: pid %d, %d arguments\n", getpid(), argc);
	for (int i = 1; i < argc; i++)
		printf("argument %d: %s\n", i, argv[i]);
	return 0;
}
