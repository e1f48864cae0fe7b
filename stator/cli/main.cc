#include "stator/cli/program.h"

int main(int argc, char** argv) { return stator::cli::run_program(argc, argv); }
