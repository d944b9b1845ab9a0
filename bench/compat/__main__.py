from bench.compat.run import main

main()
