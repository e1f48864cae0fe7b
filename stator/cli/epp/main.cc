#include "stator/cli/epp/epp_command.h"
#include "stator/cli/program.h"

int main(int argc, char** argv) {
    return stator::cli::run_as(argc, argv, stator::cli::run_epp_here);
}
