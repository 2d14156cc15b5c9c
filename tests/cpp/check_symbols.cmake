# Fails if an instruction set's object file defines a symbol that the linker might take for another set's: an inline function
# or template compiled with AVX-512 must not end up in code for older machines.
execute_process(COMMAND ${NM} --defined-only -C ${OBJECTS} OUTPUT_VARIABLE symbols RESULT_VARIABLE failed)
if(failed)
  message(FATAL_ERROR "cannot read the symbols of ${OBJECTS}")
endif()
string(REGEX MATCHALL "[^\n]* [WVuw] [^\n]*" shared "${symbols}")
if(shared)
  string(REPLACE ";" "\n" shared "${shared}")
  message(FATAL_ERROR "symbols shared between instruction sets in ${OBJECTS}:\n${shared}")
endif()
