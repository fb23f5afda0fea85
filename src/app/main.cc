#include "app/cli.h"

int main(int argc, char** argv) { return kvasir::RunCommandLine(argc, argv); }
