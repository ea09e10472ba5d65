// Package bench measures Forebay beside what bounds it: the bare disk. It holds
// no code of the program; `make bench` runs it and prints one table. Everything
// in the table is measured in turn in one run, and the ratios are what counts:
// machines differ, and the same machine from minute to minute.
package bench
